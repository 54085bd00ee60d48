// Parts of a page are replaced by those of another answer of the server.
import { listen } from './live.js';
import { tellTimes } from './times.js';

// load asks the server. The answer becomes a document in which no script runs, so that no
// text ever has to be turned into elements here; it has no noscript, which would be shown.
// begun is given the request.
export function load(url, body, begun) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(body ? 'POST' : 'GET', url);
    request.responseType = 'document';
    request.onload = () => {
      request.response?.querySelectorAll('noscript').forEach((part) => part.remove());
      resolve({ page: request.response, url: request.responseURL, status: request.status });
    };
    request.onerror = request.onabort = () => reject(new Error('no answer'));
    begun?.(request);
    request.send(body);
  });
}

// replace puts the elements with these ids of an answer into the page. Details stay open
// or closed, and the focus stays on the link or button with the same words.
export function replace(page, ids) {
  for (const id of ids) {
    const before = document.getElementById(id);
    const after = page.getElementById(id);
    if (!before || !after || before.isEqualNode(after)) continue;
    const open = [...before.querySelectorAll('details')].map((details) => details.open);
    const fresh = document.importNode(after, true);
    fresh.querySelectorAll('details').forEach((details, i) => { details.open ||= open[i] ?? false; });
    const focus = before.contains(document.activeElement) ? document.activeElement : null;
    before.replaceWith(fresh);
    if (focus) likest(fresh, focus).focus({ preventScroll: true });
  }
  tellTimes();
}

function likest(part, element) {
  const own = element.id && part.querySelector(`#${CSS.escape(element.id)}`);
  if (own) return own;
  const same = [...part.querySelectorAll(element.localName)];
  return same.find((other) => other.textContent === element.textContent) ?? part;
}

// The message of a form that was carried out is told once, and not again when the page is
// loaded anew; except for one that can be undone.
const here = new URL(location);
if (here.searchParams.has('done')) {
  here.searchParams.delete('done');
  history.replaceState(history.state, '', here);
}

const place = () => location.pathname + location.search;
let shown = place(); // the address of the page, or of the one that is asked for

let latest = 0; // only the answer to the last request is shown

async function show(url, ids, remember) {
  const own = ++latest;
  const parts = ids.map((id) => document.getElementById(id));
  parts.forEach((part) => part?.classList.add('busy'));
  let answer;
  try {
    answer = await load(url);
  } catch {
    location.assign(url);
    return;
  }
  if (own !== latest) return;
  if (!ids.every((id) => answer.page?.getElementById(id)) || !sameOrigin(answer.url)) {
    location.assign(url); // signed out, or an error
    return;
  }
  turnTo(answer, ids, remember);
}

// turnTo shows the parts of an answer, and makes its address the one of the page.
export function turnTo(answer, ids, remember) {
  if (remember) history[remember](null, '', answer.url);
  shown = place();
  document.title = answer.page.title;
  replace(answer.page, ids);
  listen();
}

const sameOrigin = (url) => new URL(url).origin === location.origin;

document.addEventListener('click', (event) => {
  const link = event.target.closest('[data-swap] a[href]');
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  if (link.pathname !== location.pathname || link.matches('[data-dialog]')) return;
  event.preventDefault();
  show(link.href, ['main'], 'pushState');
});

const address = (form) => {
  const query = new URLSearchParams(new FormData(form));
  for (const [name, value] of [...query]) if (!value) query.delete(name);
  return query.size ? `${form.action}?${query}` : form.action;
};

// A search is shown while one types, but not by a part of a name, which nobody has. The
// first letter makes an entry in the history, and the others change it.
let typing;
let typed = false;
document.addEventListener('input', (event) => { if (!event.target.matches('[data-whole]')) search(event); });
document.addEventListener('change', (event) => { if (event.target.matches('[data-whole]')) search(event); });

function search(event) {
  const form = event.target.closest('form[data-into]');
  if (!form) return;
  clearTimeout(typing);
  if (!form.checkValidity()) return; // there is too little to search for
  typing = setTimeout(() => {
    show(address(form), [form.dataset.into], typed ? 'replaceState' : 'pushState');
    typed = true;
  }, 200);
}

document.addEventListener('submit', (event) => {
  const form = event.target;
  if (form.matches('form[data-into]')) {
    event.preventDefault();
    clearTimeout(typing);
    show(address(form), [form.dataset.into], 'replaceState');
  } else if (form.matches('[data-swap] form[method=get]:not([data-dialog])')) {
    event.preventDefault();
    show(address(form), ['main'], 'pushState');
  }
});

// A step to another part of the same page, as by the link to the content, shows nothing new.
addEventListener('popstate', () => {
  if (place() === shown) return;
  shown = place();
  typed = false;
  show(location.href, ['main']);
});
