// A chart tells the values at a place, under the pointer or by the arrow keys. It reads
// them from the table behind it.
let at = -1;

function rowsOf(picture) {
  return picture.closest('[data-chart]').querySelectorAll('.behind tbody tr');
}

function tell(picture, index) {
  const rows = rowsOf(picture);
  if (!rows.length) return;
  at = Math.max(0, Math.min(rows.length - 1, index));
  let cursor = picture.querySelector('.cursor');
  if (!cursor) {
    cursor = document.createElement('div');
    cursor.className = 'cursor';
    const tip = document.createElement('div');
    tip.className = 'tip';
    tip.setAttribute('role', 'status');
    cursor.append(tip);
    picture.append(cursor);
  }
  const part = rows.length > 1 ? at / (rows.length - 1) : 0.5;
  cursor.style.left = `${100 * part}%`;
  const names = [...picture.closest('[data-chart]').querySelectorAll('.behind thead th')].map((th) => th.textContent);
  const lines = [...rows[at].children].map((cell, i) => {
    const line = document.createElement('div');
    line.textContent = i ? `${names[i]}: ${cell.textContent}` : cell.textContent;
    return line;
  });
  const tip = cursor.firstChild;
  tip.classList.toggle('left', part > 0.5);
  tip.replaceChildren(...lines);
}

function forget(picture) {
  picture.querySelector('.cursor')?.remove();
}

document.addEventListener('pointermove', (event) => {
  const picture = event.target.closest?.('.picture');
  for (const cursor of document.querySelectorAll('.picture:not(:focus) .cursor')) {
    if (cursor.parentElement !== picture) cursor.remove();
  }
  if (!picture) return;
  const box = picture.getBoundingClientRect();
  tell(picture, Math.round((event.clientX - box.left) / box.width * (rowsOf(picture).length - 1)));
});

document.addEventListener('keydown', (event) => {
  const picture = event.target.closest?.('.picture');
  if (!picture) return;
  const last = rowsOf(picture).length - 1;
  const next = { ArrowLeft: at < 0 ? last : at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
  if (event.key === 'Escape') forget(picture);
  if (next === undefined) return;
  event.preventDefault();
  tell(picture, next);
});

document.addEventListener('focusout', (event) => {
  const picture = event.target.closest?.('.picture');
  if (picture) forget(picture);
});
