// Links are ticked in the list, to do something with many at once.
let last; // the box that was ticked last

const boxes = () => [...document.querySelectorAll('.pick')];

// tell says how many are ticked.
function tell() {
  const form = document.getElementById('many');
  if (!form) return;
  const all = boxes();
  const ticked = all.filter((box) => box.checked).length;
  form.querySelector('[data-ticked]').textContent = form.elements.all.checked ? 'All of them' : `${ticked} ticked`;
  const head = document.querySelector('.pick-all');
  head.checked = ticked > 0 && ticked === all.length;
  head.indeterminate = ticked > 0 && ticked < all.length;
}

document.addEventListener('click', (event) => {
  const box = event.target.closest?.('.pick');
  if (!box) return;
  const all = boxes();
  if (event.shiftKey && all.includes(last)) {
    const [from, to] = [all.indexOf(last), all.indexOf(box)].sort((a, b) => a - b);
    all.slice(from, to + 1).forEach((other) => { other.checked = box.checked; });
  }
  last = box;
  tell();
});

document.addEventListener('change', (event) => {
  if (event.target.matches('.pick-all')) boxes().forEach((box) => { box.checked = event.target.checked; });
  if (event.target.matches('.pick, .pick-all, .many input')) tell();
});

// A field of several tags suggests the next one behind those that it has.
document.addEventListener('input', (event) => {
  const field = event.target.closest('[data-tags]');
  if (!field?.list || event.inputType === 'insertReplacementText') return;
  const before = field.value.slice(0, field.value.lastIndexOf(',') + 1);
  for (const option of field.list.options) {
    option.dataset.tag ??= option.value;
    option.value = before ? `${before} ${option.dataset.tag}` : option.dataset.tag;
  }
});

tell();
