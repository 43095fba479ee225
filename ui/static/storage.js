// Where this page keeps what is the visitor's. Stands in the place of window.localStorage, for gradio's BrowserState too,
// and runs before any script of gradio's. What belongs on the first shelf goes to the next one if that is full or not
// allowed: localStorage, sessionStorage, the history entry of this window, which outlives a reload where nothing else may.
//
// Conversations are the first window's. Another one that is open beside it has its own, in its sessionStorage.
(() => {
  const CONVERSATION = "qwen-playground-", WINDOW = "window-", OWNER = "playground-owner", ME = WINDOW + "id";
  const GONE_MS = 5000, ANSWER_MS = 2500; // a reload takes less than the one, an answer of another window than the other
  const random = () => Math.random().toString(36).slice(2);
  const shelf = (name) => { try { window[name].length; return window[name]; } catch { return null; } };
  const local = shelf("localStorage"), session = shelf("sessionStorage");

  const entry = new Map(Object.entries(history.state?.playground || {}));
  const write = () => { try { history.replaceState({ ...history.state, playground: Object.fromEntries(entry) }, ""); } catch { /* too much: as long as this page */ } };
  const memory = {
    getItem: (key) => entry.get(key) ?? null,
    setItem: (key, value) => { entry.set(key, value); write(); },
    removeItem: (key) => { if (entry.delete(key)) write(); },
    clear: () => { entry.clear(); write(); },
    keys: () => [...entry.keys()],
  };
  const keys = (place) => place?.keys?.() ?? Array.from({ length: place?.length || 0 }, (_, n) => place.key(n));
  const ofThisWindow = [memory, session].filter(Boolean); // the newest first: what does not fit any more is there

  // --- whose the conversations are -------------------------------------------------------------------------------

  const owner = () => { try { return JSON.parse(local.getItem(OWNER)) || {}; } catch { return {}; } };
  const claim = (left) => { try { local?.setItem(OWNER, JSON.stringify({ id: me, left })); } catch { full = true; } };
  let full = false, me = first(ofThisWindow, ME);
  if (!me) keep(ofThisWindow.at(-1), ME, (me = random()));
  const mine = () => local !== null && (full || owner().id === me);
  const hasOwn = () => ofThisWindow.some((place) => keys(place).some((key) => key.startsWith(CONVERSATION)));

  function first(places, key) {
    return places.map((place) => place.getItem(key)).find((value) => value !== null) ?? null;
  }
  function keep(place, key, value) {
    try { place.setItem(key, value); return true; } catch { return false; }
  }

  const places = (key) => {
    const shared = local && !key.startsWith(WINDOW) && (!key.startsWith(CONVERSATION) || mine());
    return [...(shared ? [local] : []), ...(session ? [session] : []), memory];
  };
  const setItem = (key, value) => {
    if (keeping.forgotten) return;
    const all = places(key), place = all.find((place) => keep(place, key, String(value)));
    for (const other of ofThisWindow) if (other !== place) other.removeItem(key);
    if (place !== all[0]) tell("keep_full");
  };

  // Said once a window; page.js knows how.
  const tell = (what) => {
    if (first(ofThisWindow, WINDOW + what) !== null) return;
    keep(ofThisWindow.at(-1), WINDOW + what, "said");
    keeping.told.push(what);
    keeping.tell?.();
  };
  const keeping = (window.keeping = { told: [], forgotten: false });

  if (local) {
    const now = owner(), mark = random();
    const channel = "BroadcastChannel" in window ? new BroadcastChannel("playground") : null;
    let answered = false;
    const second = () => {
      answered = true;
      if (now.id === me) { // this window was made as a copy of that one: what it shows is its own from here on
        me = random();
        keep(ofThisWindow.at(-1), ME, me);
        for (const key of keys(local)) if (key.startsWith(CONVERSATION)) setItem(key, local.getItem(key));
      }
      tell("keep_second");
    };
    channel?.addEventListener("message", ({ data }) => {
      if (data.ask === me && data.from !== mark) channel.postMessage({ to: data.from });
      if (data.to === mark && !answered) second();
      if (data.forget) { clear(); location.reload(); }
    });
    const free = !now.id || (!hasOwn() && now.left && Date.now() - now.left > GONE_MS);
    if (free || now.id === me) claim();
    if (!free) channel?.postMessage({ ask: now.id, from: mark });
    if (!free && now.id !== me && !hasOwn()) setTimeout(() => { // the other one is gone and could not say so
      if (answered || !channel) return;
      claim();
      location.reload();
    }, ANSWER_MS);
    addEventListener("pagehide", () => { if (mine() && !keeping.forgotten) claim(Date.now()); });
    addEventListener("pageshow", (event) => { if (event.persisted && mine()) claim(); });
    keeping.channel = channel;
  } else tell("keep_forbidden");

  const clear = () => {
    keeping.forgotten = true;
    for (const place of [local, ...ofThisWindow]) place?.clear();
  };
  keeping.forget = () => {
    clear();
    keeping.channel?.postMessage({ forget: true });
  };

  class Kept {
    getItem(key) { return first([...ofThisWindow, ...(places(key)[0] === local ? [local] : [])], key); }
    setItem(key, value) { setItem(key, value); }
    removeItem(key) { for (const place of places(key)) place.removeItem(key); }
    clear() { clear(); }
    key(n) { return this.all()[n] ?? null; }
    get length() { return this.all().length; }
    all() { return [...new Set([local, ...ofThisWindow].flatMap(keys))]; }
  }
  Object.defineProperty(window, "localStorage", { value: new Kept(), configurable: true });
})();
