// The title of a button that can't be pressed says why.

function look() {
  for (const [id, why] of Object.entries(props.why)) {
    const button = document.getElementById(id);
    if (button && button.title !== (button.disabled ? why : "")) {
      button.title = button.disabled ? why : "";
    }
  }
}

new MutationObserver(look).observe(document.body, {
  subtree: true,
  childList: true,
  attributes: true,
  attributeFilter: ["disabled"],
});
look();
