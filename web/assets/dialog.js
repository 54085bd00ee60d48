// A link or form with data-dialog opens the form of its page in a dialog.
import { load } from './parts.js';

let dialog;
let lent = []; // elements of the page whose ids are those of fields in the dialog

function show(form) {
  if (!dialog) {
    dialog = document.createElement('dialog');
    dialog.addEventListener('close', () => {
      dialog.remove();
      dialog = null;
      lent.forEach(([element, id]) => { element.id = id; });
      lent = [];
    });
    dialog.addEventListener('input', () => { dialog.dataset.changed = ''; });
    document.body.append(dialog);
  }
  for (const { id } of form.querySelectorAll('[id]')) {
    const same = document.getElementById(id);
    if (!same || dialog.contains(same)) continue;
    same.removeAttribute('id'); // labels would mean it
    lent.push([same, id]);
  }
  const title = form.querySelector('h1');
  title.id = 'dialog-title';
  dialog.setAttribute('aria-labelledby', title.id);
  dialog.replaceChildren(document.importNode(form, true));
  if (!dialog.open) dialog.showModal();
  (dialog.querySelector('[autofocus]') ?? dialog.querySelector('input:not([type=hidden])'))?.focus();
}

async function open(url) {
  const answer = await load(url).catch(() => null);
  const form = answer?.page?.querySelector('form.sheet');
  if (!form || form.matches('[data-sign-in]')) return location.assign(url);
  show(form);
}

// A dialog in which something was typed is closed by its button alone.
let pressed;
document.addEventListener('pointerdown', (event) => { pressed = event.target; });
const isBeside = (event) => event.target === dialog && pressed === dialog && !('changed' in dialog.dataset);

// A key that is held down presses no button of a dialog that it has opened.
document.addEventListener('keydown', (event) => {
  if (event.repeat && event.key === 'Enter' && !event.target.matches('textarea')) event.preventDefault();
});

document.addEventListener('click', (event) => {
  if (event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const link = event.target.closest('a[data-dialog]');
  if (link) {
    event.preventDefault();
    open(link.href);
  } else if (dialog && (isBeside(event) || dialog.contains(event.target) && event.target.closest('a[data-close]'))) {
    event.preventDefault();
    dialog.close();
  }
});

document.addEventListener('submit', async (event) => {
  const form = event.target;
  if (event.submitter?.matches('[data-file]')) return; // the answer is a file
  const asks = event.submitter?.formMethod === 'get' || form.matches('form[data-dialog]');
  if (asks && (dialog?.contains(form) || form.matches('form[data-dialog]'))) {
    event.preventDefault();
    const action = event.submitter?.hasAttribute('formaction') ? event.submitter.formAction : form.action;
    open(`${action}?${new URLSearchParams(new FormData(form, event.submitter))}`);
    return;
  }
  if (!dialog?.contains(form)) {
    // A form that is sent is not sent twice.
    if (form.method === 'post') setTimeout(() => form.querySelectorAll('button').forEach((button) => { button.disabled = true; }));
    return;
  }
  event.preventDefault();
  const sent = new URLSearchParams(new FormData(form, event.submitter));
  const buttons = form.querySelectorAll('button');
  buttons.forEach((button) => { button.disabled = true; });
  const answer = await load(form.action, sent).catch(() => null);
  const again = answer?.page?.querySelector('form.sheet');
  if (again?.matches('[data-sign-in]')) tell(form, 'Your session has ended. Sign in in another tab, and try again here.');
  else if (answer?.status < 400) return location.assign(answer.url);
  else if (again) return show(again);
  else tell(form, answer?.page?.querySelector('[data-message]')?.textContent ?? 'The server does not answer. Try again shortly.');
  buttons.forEach((button) => { button.disabled = false; });
});

// tell says in a form why it was not carried out, and leaves it as it is.
function tell(form, message) {
  let line = form.querySelector('[role=alert]');
  if (!line) {
    line = document.createElement('p');
    line.className = 'fault';
    line.setAttribute('role', 'alert');
    form.querySelector('.end').before(line);
  }
  line.textContent = message;
}

// The faults of a field are said while one types. The server judges, as it does when
// the form is sent; fields that nobody has touched are left alone.
let checking;
document.addEventListener('input', (event) => {
  const form = event.target.closest('form[data-check]');
  if (!form) return;
  event.target.dataset.touched = '';
  clearTimeout(checking);
  checking = setTimeout(() => check(form), 400);
});

async function check(form) {
  const query = new URLSearchParams(new FormData(form));
  query.set('check', '');
  const answer = await load(`${form.action}?${query}`).catch(() => null);
  if (answer?.status !== 200 || !form.isConnected) return;
  for (const input of form.querySelectorAll('[data-touched]')) {
    const fault = answer.page.getElementById(`${input.id}-fault`);
    form.querySelector(`#${input.id}-fault`)?.remove();
    input.toggleAttribute('aria-invalid', Boolean(fault));
    if (!fault) continue;
    input.setAttribute('aria-invalid', 'true');
    input.setAttribute('aria-describedby', fault.id);
    input.after(document.importNode(fault, true));
  }
}

// A page that comes back from the browser's cache has its buttons again.
addEventListener('pageshow', () => document.querySelectorAll('button:disabled').forEach((button) => { button.disabled = false; }));
