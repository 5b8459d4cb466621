// A line that changes while something runs. It may change three times a second, which nobody wants
// to hear: screen readers are told it every few seconds, and the last state of it.

const EVERY = 5000; // ms

const told = document.createElement("div");
told.setAttribute("role", "status");
told.className = "unseen";
element.after(told);
let last = 0;
let timer = 0;

function tell() {
  clearTimeout(timer);
  const wait = last + EVERY - performance.now();
  if (wait > 0) {
    timer = setTimeout(tell, wait);
    return;
  }
  last = performance.now();
  told.textContent = element.textContent.trim();
}

watch("value", tell);
