// A file is looked at before it is sent, sent with its progress shown, and kept for the
// import that follows a trial. An import that goes on is shown as it does.
import { renew } from './live.js';
import { load, replace, turnTo } from './parts.js';

const sample = 128 * 1024; // bytes that the server looks at

let file; // that was chosen last
let tried; // the path of the import that was sent with it
let sending; // the request that sends it

const form = () => document.querySelector('form[data-upload]');

function choose(chosen) {
  const own = form();
  if (!chosen || !own) return;
  file = chosen;
  const list = new DataTransfer();
  list.items.add(chosen);
  own.elements.file.files = list.files;
  if (own.querySelector('#options')) look(own, ['kind', 'mapping', 'format']);
}

// body returns the form with its fields before the file, as the server reads them. The
// first look at a file leaves out what an earlier one has told.
function body(own, part, without = []) {
  const data = new FormData(own);
  data.delete('file');
  if (own.querySelector('.found')) without.forEach((name) => data.delete(name));
  data.append('file', part, file.name);
  return data;
}

let latest = 0;

// look shows what the beginning of the file tells, with the parameters to change.
async function look(own, without) {
  const mine = ++latest;
  const answer = await load('/app/imports/preview', body(own, file.slice(0, sample), without)).catch(() => null);
  if (mine !== latest || !own.isConnected) return;
  if (!answer?.page?.getElementById('options')) return refuse(own, answer);
  say(own, '');
  replace(answer.page, ['options']);
  own.querySelector('[aria-invalid]')?.focus();
}

async function send(own) {
  const line = own.querySelector('.sending');
  const buttons = [...own.querySelectorAll('button:not([data-cancel])')];
  const lock = (locked) => {
    buttons.forEach((button) => { button.disabled = locked; });
    line.querySelector('button').disabled = false;
    line.hidden = !locked;
  };
  setTimeout(() => lock(Boolean(sending))); // after other listeners
  const answer = await load(own.action, body(own, file), (request) => {
    sending = request;
    say(own, '');
    request.upload.onprogress = (event) => tell(line, event.loaded, event.total);
  }).catch(() => null);
  const cancelled = !sending;
  sending = undefined;
  if (answer?.status < 400 && answer.page.querySelector('[data-message], form[data-sign-in]') === null) {
    tried = new URL(answer.url).pathname;
    turnTo(answer, ['main'], 'pushState');
    prepare();
    document.getElementById('main').focus();
    return;
  }
  lock(false);
  if (cancelled) say(own, 'The upload was cancelled. Nothing of the file is imported.');
  else refuse(own, answer);
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

function tell(line, loaded, total) {
  const bar = line.querySelector('progress');
  bar.max = total;
  bar.value = loaded;
  const words = loaded < total ? `${megabytes(loaded)} of ${megabytes(total)} sent` : 'All is sent. The server stores the rest.';
  const status = line.querySelector('[role=status]');
  if (status.textContent !== words) status.textContent = words;
}

// refuse says why the server did not take the file; the form stays.
function refuse(own, answer) {
  if (answer?.page?.querySelector('form[data-sign-in]')) return say(own, 'Your session has ended. Sign in in another tab, and try again here.');
  const reason = answer?.page?.querySelector('[data-message], .fault');
  say(own, reason?.textContent ?? 'The server does not answer. Try again shortly.');
}

function say(own, message) {
  let line = own.querySelector('[data-said]');
  if (!line) {
    line = document.createElement('p');
    line.className = 'fault';
    line.dataset.said = '';
    line.setAttribute('role', 'alert');
    own.querySelector('.sending').before(line);
  }
  line.textContent = message;
}

// prepare lets the page of a trial send the file that is kept, without asking for it again.
function prepare() {
  const own = form();
  if (own?.dataset.upload !== 'kept' || !file || location.pathname !== tried) return;
  own.querySelector('.drop').hidden = true;
  own.elements.file.required = false;
}

document.addEventListener('change', (event) => {
  const own = event.target.closest('form[data-upload]');
  if (!own) return;
  if (event.target.type === 'file') choose(event.target.files[0]);
  else if (event.target.name !== 'dry_run' && file) look(own, event.target.name === 'kind' ? ['mapping', 'format'] : []);
});

document.addEventListener('submit', (event) => {
  const own = event.target;
  if (!own.matches('form[data-upload]') || !file) return;
  event.preventDefault();
  send(own);
});

document.addEventListener('click', async (event) => {
  if (event.target.closest('[data-cancel]')) {
    const request = sending;
    sending = undefined;
    request?.abort();
  }
  const link = event.target.closest('a[data-sample], a[data-again]');
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (link.matches('[data-again]') && (!file || location.pathname !== tried)) return;
  event.preventDefault();
  try {
    let chosen = file;
    if (link.matches('[data-sample]')) {
      const answer = await fetch(link.href);
      chosen = new File([await answer.blob()], link.textContent, { type: 'text/csv' });
    } else {
      turnTo(await load(link.href), ['main'], 'pushState');
    }
    choose(chosen);
    form().scrollIntoView();
  } catch {
    location.assign(link.href);
  }
});

for (const name of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(name, (event) => {
    const zone = document.querySelector('.drop:not([hidden])');
    if (!zone || !event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    zone.classList.toggle('over', name === 'dragover');
    if (name === 'drop') choose(event.dataTransfer.files[0]);
  });
}

// An import that goes on is looked at every second, while somebody sees it. The form of a
// trial comes with its end.
async function watch() {
  if (document.querySelector('[data-moving]')) {
    await renew();
    prepare();
  }
  setTimeout(watch, 1000);
}
watch();
