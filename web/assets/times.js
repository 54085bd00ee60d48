const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

// Times are told relative to now, as the server words them, and move on.
export function word(at) {
  const ago = (Date.now() - at) / 1000;
  if (ago < -60 || ago >= 7 * 86400) return `${at.getDate()} ${months[at.getMonth()]}${sameYear(at) && ago > 0 ? '' : ` ${at.getFullYear()}`}`;
  if (ago < 5) return 'now';
  if (ago < 60) return `${Math.floor(ago)} s ago`;
  if (ago < 3600) return `${Math.floor(ago / 60)} min ago`;
  if (ago < 86400) return `${Math.floor(ago / 3600)} h ago`;
  return `${Math.floor(ago / 86400)} d ago`;
}

const sameYear = (at) => at.getFullYear() === new Date().getFullYear();

export function tellTimes() {
  for (const time of document.querySelectorAll('time[datetime]')) {
    const text = word(new Date(time.dateTime));
    if (time.textContent !== text) time.textContent = text;
  }
}

setInterval(tellTimes, 5000);
