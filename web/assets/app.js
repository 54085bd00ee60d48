// The pages work without scripts. These modules improve them: a link or form that
// changes a part of a page replaces that part (parts.js), forms open in a dialog
// (dialog.js), clicks arrive while one looks (live.js), charts tell their values
// (chart.js), texts are copied, times move on, and keys do what one does often.
import './parts.js';
import './dialog.js';
import './many.js';
import './chart.js';
import './imports.js';
import { listen } from './live.js';
import { tellTimes } from './times.js';

document.documentElement.classList.add('js');

// The server words times in the zone of the browser from the next page on.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const secure = location.protocol === 'https:' ? '; secure' : '';
document.cookie = `signpost_zone=${encodeURIComponent(zone)}; path=/app; max-age=31536000; samesite=lax${secure}`;

// A link to sign in carries its secret behind the #, which no server sees. Other texts there
// come along from the address that one wanted to see.
const signIn = document.querySelector('form[data-sign-in]');
if (signIn && /^#[A-Z2-7]{26}$/.test(location.hash)) {
  signIn.elements.link.value = location.hash;
  history.replaceState(null, '', location.pathname);
  signIn.submit();
}

// copy puts a text on the clipboard, also on a page that came without TLS.
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement('textarea');
  field.value = text;
  (document.querySelector('dialog[open]') ?? document.body).append(field);
  field.select();
  document.execCommand('copy');
  field.remove();
}

document.addEventListener('click', async (event) => {
  const button = event.target.closest('[data-copy]');
  if (!button) return;
  await copy(button.dataset.copy);
  const label = button.querySelector('span');
  label.dataset.word ??= label.textContent;
  label.textContent = 'Copied';
  button.classList.add('copied');
  setTimeout(() => { label.textContent = label.dataset.word; button.classList.remove('copied'); }, 1500);
});

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
  if (event.target.closest('input, select, textarea, [contenteditable]')) return;
  if (event.key === '?') return document.getElementById('keys')?.showModal();
  const target = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (target) {
    event.preventDefault();
    if (target.matches('input')) target.select(); else target.click();
  } else if (event.key === '/') {
    event.preventDefault();
    location.assign('/app/links#q');
  }
});

// An open menu closes when one does something else.
document.addEventListener('click', (event) => {
  for (const menu of document.querySelectorAll('.menu[open]')) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

// On a narrow screen the navigation shows the page that one is on.
const current = document.querySelector('nav [aria-current]');
const nav = current?.closest('nav');
if (nav) nav.scrollLeft = current.offsetLeft - nav.offsetLeft - nav.clientWidth / 2;

listen();
tellTimes();
