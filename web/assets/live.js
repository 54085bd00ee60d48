// Clicks arrive in the list of the latest, and the numbers follow.
import { load, replace } from './parts.js';
import { word } from './times.js';

const most = 30; // rows of the list
const pause = 4000; // between two looks at the numbers, in ms

let source;
let path;

// listen listens to the clicks that the page is about, until another page is shown.
export function listen() {
  const list = document.querySelector('[data-live]');
  if (list?.dataset.live === path) return tell();
  source?.close();
  path = list?.dataset.live;
  if (!list) return;
  source = new EventSource(path);
  source.addEventListener('ready', tell);
  source.addEventListener('click', (event) => add(JSON.parse(event.data)));
  source.addEventListener('missed', refresh);
  source.onerror = () => {
    tell();
    // The server refused: most likely the session has ended.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 3000);
  };
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
  row.querySelector('[data-f=link]').href = `/app/links/${click.url_id}`;
  set('country', click.country && country.of(click.country));
  set('referrer', click.referrer);
  const person = click.kind === 'person';
  set('device', person && click.device);
  set('kind', click.more ? `and ${click.more} more` : JSON.parse(list.dataset.kinds)[click.kind]);
  row.classList.add('new');
  list.prepend(row);
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
  const ids = [...document.querySelectorAll('[data-fresh]')].filter((part) => !part.contains(document.activeElement)).map((part) => part.id);
  if (ids.length && !document.hidden) {
    const answer = await load(location.href).catch(() => null);
    if (answer?.status === 200) replace(answer.page, ids);
  }
  timer = once ? setTimeout(look, pause) : undefined;
}

document.addEventListener('visibilitychange', () => { if (!document.hidden && path) refresh(); });
