// Clicks arrive in the list of the latest, and the numbers follow.
import { load, replace } from './parts.js';
import { word } from './times.js';

const most = 30; // rows of the list
const pause = 4000; // between two looks at the numbers, in ms
const minute = 60000;

let source;
let path; // of what is listened to
let retry;
let wait; // before the next try, in ms
let gap = false; // clicks may have come while nobody listened
let added = 0; // rows of the list

// listen listens to the clicks that the page is about, until another page is shown. A tab
// that nobody sees does not listen: browsers open few connections to a host.
export function listen() {
  const list = document.hidden ? null : document.querySelector('[data-live]');
  if (list?.dataset.live !== path) {
    clearTimeout(retry);
    source?.close();
    source = undefined;
    path = list?.dataset.live;
    wait = 1000;
    if (path) open();
  }
  tell();
}

function open() {
  const own = new EventSource(path);
  source = own;
  own.addEventListener('ready', () => { wait = 1000; tell(); });
  own.addEventListener('click', (event) => add(JSON.parse(event.data)));
  own.addEventListener('missed', () => { gap = true; refresh(); });
  own.onerror = () => {
    tell();
    if (own.readyState === EventSource.CLOSED) refused(own);
  };
}

// refused leaves the page if the session has ended. Otherwise it tries again, after a pause
// that grows.
async function refused(own) {
  const answer = await load(location.href).catch(() => null);
  if (own !== source) return;
  if (answer?.page?.querySelector('[data-sign-in]')) return location.assign(answer.url);
  gap = true;
  retry = setTimeout(() => { open(); refresh(); }, wait);
  wait = Math.min(2 * wait, minute);
}

function tell() {
  const state = document.querySelector('[data-live-state]');
  if (state) state.hidden = source?.readyState !== EventSource.OPEN;
}

const country = new Intl.DisplayNames('en', { type: 'region' });

function add(click) {
  const list = document.querySelector('[data-live]');
  const template = document.getElementById('click');
  if (!list || !template) return;
  const row = template.content.cloneNode(true).querySelector('li');
  const set = (name, text) => { row.querySelector(`[data-f=${name}]`).textContent = text || ''; };
  const time = row.querySelector('time');
  time.dateTime = click.timestamp;
  time.title = new Date(click.timestamp).toLocaleString();
  time.textContent = word(new Date(click.timestamp));
  set('link', click.short_code ? `${click.domain ?? ''}/${click.short_code}` : 'deleted link');
  if (click.short_code) row.querySelector('[data-f=link]').href = `/app/links/${click.url_id}`;
  set('country', click.country && country.of(click.country));
  set('referrer', click.referrer);
  const person = click.kind === 'person';
  set('device', person && click.device);
  set('kind', click.more ? `and ${click.more} more` : JSON.parse(list.dataset.kinds)[click.kind]);
  row.classList.add('new');
  list.prepend(row);
  added++;
  while (list.children.length > most) list.lastElementChild.remove();
  list.parentElement.querySelector('.nothing')?.remove();
  refresh();
}

let timer;
let again = false;

// refresh has the numbers follow the clicks. They are counted a moment after a click is
// shown, so the page looks at them a little later, and once more.
function refresh() {
  again = true;
  timer ??= setTimeout(look, 1500);
}

async function look() {
  const once = again;
  again = false;
  await renew();
  timer = once || again ? setTimeout(look, pause) : undefined;
}

// isSelecting reports whether somebody selects text, which replacing it would end.
const isSelecting = () => Boolean(getSelection()?.toString());

// renew replaces all numbers of the page, so that they agree with each other; or none, while
// somebody reads the values of a chart by keys, or selects text.
export async function renew() {
  const ids = [...document.querySelectorAll('[data-fresh]')].map((part) => part.id);
  if (!ids.length || document.hidden || document.querySelector('.picture:focus-visible') || isSelecting()) return;
  if (gap) ids.push('feed');
  const from = location.href;
  const before = added;
  const answer = await load(from).catch(() => null);
  if (location.href !== from) return;
  // A viewer who is signed out goes to where one signs in, unless a form would be lost.
  if (answer?.page?.querySelector('[data-sign-in]') && !document.querySelector('dialog[open]')) return location.assign(answer.url);
  if (answer?.status !== 200) return;
  replace(answer.page, ids);
  if (gap) gap = added !== before; // a row that has just come may be lost
  tell();
}

// Numbers change without clicks too: clicks are on the way, and days end. A page may ask to
// be looked at more often, in seconds.
let seconds = 0;
setInterval(() => {
  const every = document.querySelector('[data-every]')?.dataset.every ?? 60;
  if (++seconds % every === 0) timer ??= setTimeout(look);
}, 1000);

document.addEventListener('visibilitychange', () => {
  listen();
  if (document.hidden) return;
  gap = true;
  refresh();
});
