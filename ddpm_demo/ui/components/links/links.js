// The address holds the state of the page. The server reads and writes what is in controls; scripts
// of the page add what they know by themselves, such as t. All of it is in `ddpmLinks`.

(() => {
  const WRITE_MS = 300; // after the last change: browsers refuse an address that changes all the time
  const MOST = 5000; // characters that are sent; the server says that fewer are allowed
  const KEY = "ddpm-links";
  const PARENT = "https://huggingface.co"; // shows Spaces in a frame

  class Links {
    constructor() {
      this.tab = null; // the one that is shown
      this.early = null; // the one that was chosen before the server had read the link
      this.tabs = []; // the first is where links that name none lead
      this.queries = {}; // what the server wrote, by part
      this.page = {}; // what scripts know, by part: {generate: {t: 400}}
      this.opened = new Promise((done) => {
        this.done = done;
      });
      this.timer = 0;
    }

    /** What the server reads when the page is new. */
    asked() {
      let kept = {};
      try {
        kept = JSON.parse(sessionStorage.getItem(KEY)) ?? {};
      } catch {} // no storage
      return JSON.stringify({ link: location.search.slice(0, MOST), kept });
    }

    /** The server has read it. */
    open({ tab, tabs, queries, page, run, problems }) {
      const first = this.early === tabs[0]; // Gradio says so of each new page
      Object.assign(this, { tab: first ? tab : (this.early ?? tab), tabs });
      this.queries = { ...this.queries, ...queries };
      this.page = { ...this.page, ...page };
      this.done({ page, run });
      if (location.search) this.write();
      if (run) requestAnimationFrame(() => requestAnimationFrame(() => press(run)));
      document.documentElement.dataset.link = problems ? "problems" : "read"; // for tests
    }

    /** The server has written a part anew. */
    written(part, query) {
      this.queries[part] = query;
      this.later();
    }

    /** A script has something to say of its part; null: as by default. */
    set(part, values) {
      const now = { ...this.page[part], ...values };
      if (JSON.stringify(now) === JSON.stringify(this.page[part])) return;
      this.page[part] = now;
      this.later();
    }

    choose(tab) {
      if (!this.tab) this.early = tab;
      if (!this.tab || this.tab === tab) return;
      this.tab = tab;
      this.later();
    }

    later() {
      clearTimeout(this.timer);
      if (this.tab) this.timer = setTimeout(() => this.write(), WRITE_MS);
    }

    /** The query of a part. */
    query(part) {
      const query = new URLSearchParams(this.queries[part]);
      for (const [name, value] of Object.entries(this.page[part] ?? {})) {
        if (value !== null && value !== undefined) query.set(name, value);
      }
      return query;
    }

    /** The page's address, with all that `extra` adds. */
    address(extra = {}) {
      const address = new URL(location.href);
      const parts = new Set([...Object.keys(this.queries), ...Object.keys(this.page)]);
      const query = new URLSearchParams(this.tab === this.tabs[0] ? {} : { tab: this.tab });
      for (const part of parts) {
        const shown = part === this.tab || !this.tabs.includes(part);
        for (const pair of shown ? this.query(part) : []) query.set(...pair);
      }
      for (const pair of Object.entries(extra)) query.set(...pair);
      address.search = query.toString().replaceAll("%2C", ","); // as people write it
      return address;
    }

    write() {
      if (!this.tab) return;
      const theme = new URLSearchParams(location.search).get("__theme"); // Gradio's own
      const address = this.address(theme ? { __theme: theme } : {});
      const kept = Object.keys(this.queries).map((part) => [part, `${this.query(part)}`]);
      try {
        if (address.href !== location.href) history.replaceState(history.state, "", address);
        sessionStorage.setItem(KEY, JSON.stringify(Object.fromEntries(kept)));
      } catch {} // a browser that allows neither
      tellParent(address);
    }

    /**
     * Copy the address, or give a field to copy it from where the browser does not allow it.
     * @param {Element} after the field comes after it
     * @param {object} extra parameters, such as {run: 1}
     * @returns {Promise<string>} a sentence on what happened
     */
    async copy(after, extra = {}) {
      const address = this.address(extra).href;
      try {
        await navigator.clipboard.writeText(address);
        return "The link is copied.";
      } catch {
        offer(after, address);
        return "Copy the link from the field.";
      }
    }
  }

  function press(id) {
    document.getElementById(id)?.click();
  }

  function offer(after, address) {
    const next = after.nextElementSibling;
    const field = next?.matches(".ddpm-link") ? next : document.createElement("input");
    Object.assign(field, { value: address, readOnly: true, className: "ddpm-link" });
    field.setAttribute("aria-label", "Link to this page");
    after.after(field);
    field.addEventListener("blur", () => field.remove(), { once: true });
    field.focus();
    field.select();
  }

  /** A Space's page has an address of its own, around the frame. */
  function tellParent({ search, hash }) {
    if (parent === window) return;
    const above = location.ancestorOrigins ?? [document.referrer.replace(/\/$/, "")];
    if ([...above].includes(PARENT)) {
      parent.postMessage({ queryString: search.slice(1), hash }, PARENT);
    }
  }

  globalThis.ddpmLinks = new Links();
})();
