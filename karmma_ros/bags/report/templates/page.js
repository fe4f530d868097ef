'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const board = document.getElementById('board');
  const speed = document.getElementById('speed');
  const tile = document.getElementById('speed-tile');
  if (speed && tile) tile.textContent = speed.textContent;
  if (!board || !data.bags.length) return;

  const canvas = board.querySelector('canvas');
  const pen = canvas.getContext('2d');
  const details = board.querySelector('.details');
  const choice = document.getElementById('bag');
  const others = document.getElementById('others');
  const SENSORS = ['rgb', 'flow', 'audio', 'detections'];
  const VERDICT = ['no ground truth there', 'right', 'partly right', 'wrong'];
  const OUTCOME = { 1: 'right', 0: 'wrong', '-': 'no prediction', '?': 'not scored' };
  let bag = data.bags[0];
  let [from, to, cursor] = [0, 1, null];
  const ink = {};

  const label = (i) => (i < 0 ? 'several in quick succession' : data.labels[i]);
  const clock = (ms) => {
    const tenths = Math.round(ms / 100);
    const h = Math.floor(tenths / 36000);
    const m = Math.floor(tenths / 600) % 60;
    const s = (tenths % 600) / 10;
    const two = (x) => String(x).padStart(2, '0');
    return (h ? h + ':' + two(m) : m) + ':' + s.toFixed(1).padStart(4, '0');
  };

  // The last entry that starts at or before a time, by its first number.
  const last = (list, time) => {
    let low = 0;
    let high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle][0] <= time) low = middle + 1; else high = middle;
    }
    return low - 1;
  };
  // Actions of the truth may overlap: search some back.
  const at = (list, time) => {
    const found = [];
    for (let i = last(list, time); i >= 0 && i > last(list, time) - 12; i--) {
      if (list[i][1] > time) found.unshift(i);
    }
    return found;
  };

  const rows = () => {
    const list = [
      { kind: 'truth', name: 'ground truth', high: bag.truth.length ? 30 : 0 },
      { kind: 'predicted', name: 'each window', high: 24 },
      { kind: 'events', name: 'events', high: 30 },
    ];
    for (const name of SENSORS) {
      if (bag.availability[name].some((change) => change[1] > 0)) {
        list.push({ kind: 'sensor', name, high: 15 });
      }
    }
    if (others && others.checked) {
      bag.conditions.forEach((c, i) => list.push({ kind: 'outcome', name: c[0], high: 13, i }));
    }
    return list.filter((row) => row.high);
  };

  const readInk = () => {
    const style = getComputedStyle(document.documentElement);
    for (const name of ['paper', 'ink', 'soft', 'rule', 'right', 'partly', 'wrong', 'none',
      'truth', 'truth2', 'on-right', 'on-wrong', 'on-light', 'fine', 'some', 'stale', 'blind',
      'raised']) {
      ink[name] = style.getPropertyValue('--' + name).trim();
    }
  };
  const hatch = (colour, gap, upright) => {
    const tileOf = document.createElement('canvas');
    tileOf.width = tileOf.height = 8;
    const p = tileOf.getContext('2d');
    p.fillStyle = colour;
    p.fillRect(0, 0, 8, 8);
    p.strokeStyle = gap;
    p.lineWidth = 1.6;
    for (const x of [-8, 0, 8]) {
      p.beginPath();
      p.moveTo(x + (upright ? 7 : 0), 8);
      p.lineTo(x + (upright ? 7 : 8), 0);
      p.stroke();
    }
    return pen.createPattern(tileOf, 'repeat');
  };

  const SIDE = () => (canvas.clientWidth < 560 ? 0 : 92);
  const x = (time) => SIDE() + (time - from) / (to - from) * (canvas.clientWidth - SIDE());
  const time = (px) => from + (px - SIDE()) / (canvas.clientWidth - SIDE()) * (to - from);

  const box = (start, end, y, high, fill) => {
    const a = Math.max(x(start), SIDE());
    const b = Math.min(x(end), canvas.clientWidth);
    if (b < SIDE() || a > canvas.clientWidth) return null;
    pen.fillStyle = fill;
    const wide = Math.max(b - a - (b - a > 4 ? 1 : 0), 0.7);
    pen.fillRect(a, y, wide, high);
    return [a, wide];
  };
  const write = (place, text, y, high, colour) => {
    if (!place || place[1] < 26) return;
    pen.save();
    pen.beginPath();
    pen.rect(place[0], y, place[1], high);
    pen.clip();
    pen.fillStyle = colour;
    pen.fillText(text, place[0] + 5, y + high / 2 + 4);
    pen.restore();
  };
  const seen = (list, reach) => {
    const first = Math.max(0, last(list, from) - reach);
    return list.slice(first, last(list, to) + 1).map((item, k) => [item, first + k]);
  };

  let fills = {};
  const paint = {
    truth: (row, y) => seen(bag.truth, 12).forEach(([t, i]) => write(
      box(t[0], t[1], y, row.high, i % 2 ? ink.truth : ink.truth2), label(t[2]), y, row.high,
      ink.ink)),
    predicted: (row, y) => seen(bag.predicted, 1).forEach(([s]) => write(
      box(s[0], s[1], y, row.high, fills[s[4]]), label(s[2]), y, row.high, fills.on[s[4]])),
    events: (row, y) => seen(bag.events, 2).forEach(([s]) => write(
      box(s[0], s[1], y, row.high, fills[s[4]]), label(s[2]), y, row.high, fills.on[s[4]])),
    sensor: (row, y) => {
      const list = bag.availability[row.name];
      seen(list, 1).forEach(([change, i]) => {
        const end = i + 1 < list.length ? list[i + 1][0] : bag.length;
        const state = change[1];
        const share = { 6: 0.75, 5: 1, 4: 1, 3: 0.5, 2: 0.25, 1: 0.12, 0: 0.12 }[state];
        const fill = { 6: ink.blind, 5: ink.fine, 4: fills[3], 3: ink.some, 2: ink.stale }[state]
          || ink.none;
        box(change[0], end, y + row.high * (1 - share), row.high * share, fill);
      });
    },
    outcome: (row, y) => {
      const letters = bag.conditions[row.i][1];
      seen(bag.truth, 12).forEach(([t, i]) => {
        const kind = { 1: 1, 0: 3 }[letters[i]];
        const share = kind ? 1 : 0.2;
        box(t[0], t[1], y + row.high * (1 - share), row.high * share, fills[kind || 0]);
      });
    },
  };

  const steps = [100, 200, 500, 1000, 2000, 5000, 10000, 15000, 30000, 60000, 120000, 300000,
    600000, 900000, 1800000, 3600000, 7200000];
  const axis = (bottom) => {
    const wide = canvas.clientWidth - SIDE();
    const step = steps.find((s) => s / (to - from) * wide >= 78) || 14400000;
    for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
      pen.fillStyle = ink.rule;
      pen.fillRect(Math.round(x(t)), 20, 1, bottom - 20);
      pen.fillStyle = ink.soft;
      const text = step < 1000 ? clock(t) : clock(t).replace(/\.\d$/, '');
      if (x(t) + 3 + pen.measureText(text).width < canvas.clientWidth) pen.fillText(text, x(t) + 3, 14);
    }
  };

  // Moving the cursor over an afternoon must not draw the afternoon.
  const still = document.createElement('canvas');
  const mark = () => {
    const scale = window.devicePixelRatio || 1;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    if (still.width && still.height) pen.drawImage(still, 0, 0);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    if (cursor !== null && cursor >= from && cursor <= to) {
      pen.fillStyle = ink.ink;
      pen.fillRect(Math.round(x(cursor)) - 1, 18, 2, canvas.height / scale - 18);
    }
  };

  const draw = () => {
    const list = rows();
    const high = 24 + list.reduce((sum, row) => sum + row.high + 5 + (SIDE() ? 0 : 13), 0) + 4;
    const scale = window.devicePixelRatio || 1;
    canvas.style.height = high + 'px';
    canvas.width = Math.round(canvas.clientWidth * scale);
    canvas.height = Math.round(high * scale);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, canvas.clientWidth, high);
    pen.font = '12px system-ui, "Noto Sans", "DejaVu Sans", sans-serif';
    fills = { 0: ink.none, 1: ink.right, 2: hatch(ink.partly, ink.right, true),
      3: hatch(ink.wrong, ink.raised),
      on: [ink['on-light'], ink['on-right'], ink['on-light'], ink['on-wrong']] };
    axis(high);
    let y = 24;
    for (const row of list) {
      if (!SIDE()) {
        pen.fillStyle = ink.soft;
        pen.fillText(row.name, 4, y + 10);
        y += 13;
      }
      paint[row.kind](row, y);
      if (SIDE()) {
        pen.fillStyle = ink.raised;
        pen.fillRect(0, y - 2, SIDE() - 4, row.high + 4);
        pen.fillStyle = ink.soft;
        pen.fillText(row.name.length > 14 ? row.name.slice(0, 13) + '…' : row.name, 8,
          y + row.high / 2 + 4);
      }
      y += row.high + 5;
    }
    still.width = canvas.width;
    still.height = canvas.height;
    still.getContext('2d').drawImage(canvas, 0, 0);
    mark();
    const view = board.querySelector('.strip:not([hidden]) .view');
    if (view) {
      view.style.left = (100 * from / bag.length) + '%';
      view.style.width = (100 * (to - from) / bag.length) + '%';
    }
  };

  const facts = (list) => {
    const dl = document.createElement('dl');
    for (const [name, text] of list) {
      const dt = document.createElement('dt');
      const dd = document.createElement('dd');
      dt.textContent = name;
      dd.textContent = text;
      dl.append(dt, dd);
    }
    details.replaceChildren(dl);
  };
  const describe = () => {
    if (cursor === null) return;
    const list = [['time', clock(cursor)]];
    const mine = at(bag.truth, cursor);
    if (bag.truth.length) {
      list.push(['ground truth', mine.map((i) => label(bag.truth[i][2])).join(' and ') || 'none']);
    }
    const span = (s) => label(s[2]) + (s[2] < 0 ? '' : ', ' + s[3] + ' % confidence: ' + VERDICT[s[4]]);
    list.push(['each window', at(bag.predicted, cursor).map((i) => span(bag.predicted[i])).join('; ')
      || 'no prediction']);
    list.push(['event', at(bag.events, cursor).map((i) => span(bag.events[i]) + ', announced at '
      + clock(bag.events[i][5])).join('; ') || 'none']);
    for (const name of SENSORS) {
      const change = bag.availability[name][last(bag.availability[name], cursor)];
      if (change && bag.availability[name].some((c) => c[1] > 0)) {
        list.push([name, data.states[change[1]] + ', since ' + clock(change[0])]);
      }
    }
    if (others && others.checked && mine.length) {
      const by = {};
      for (const c of bag.conditions) (by[c[1][mine[0]]] = by[c[1][mine[0]]] || []).push(c[0]);
      for (const key of Object.keys(by)) list.push([OUTCOME[key], by[key].join(', ')]);
    }
    facts(list);
  };

  let waiting = false;
  const later = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
  const setView = (start, end) => {
    const span = Math.min(Math.max(end - start, 500), bag.length);
    from = Math.min(Math.max(start, 0), bag.length - span);
    to = from + span;
    later();
  };
  const zoom = (factor, around) => {
    const middle = around === undefined ? (cursor !== null && cursor > from && cursor < to
      ? cursor : (from + to) / 2) : around;
    setView(middle - (middle - from) * factor, middle + (to - middle) * factor);
  };
  const put = (t, centre) => {
    cursor = Math.min(Math.max(t, 0), bag.length);
    const half = (to - from) / 2;
    if (centre || cursor < from || cursor > to) setView(cursor - half, cursor + half);
    else mark();
    describe();
  };
  const nextOf = (times, here, direction) => (direction > 0 ? times.find((t) => t > here + 1)
    : times.filter((t) => t < here - 1).pop());
  const errorFrom = (direction) => {
    const wrong = bag.events.filter((e) => e[4] > 1).map((e) => (e[0] + e[1]) / 2);
    const next = nextOf(wrong, cursor === null ? from - 1 : cursor, direction);
    if (next !== undefined) put(next, true);
    else facts([['', direction > 0 ? 'No wrong event after this.' : 'No wrong event before.']]);
  };
  const border = (direction) => {
    const times = [...bag.truth, ...bag.events].flatMap((s) => [s[0], s[1]]).sort((a, b) => a - b);
    const next = nextOf(times, cursor === null ? from : cursor, direction);
    if (next !== undefined) put(next);
  };
  const choose = (number) => {
    bag = data.bags[number];
    if (choice) choice.value = String(number);
    board.querySelectorAll('.strip').forEach((s, i) => { s.hidden = i !== number; });
    cursor = null;
    setView(0, Math.min(bag.length, canvas.clientWidth * 70));
    const first = bag.events[0] || bag.predicted[0] || bag.truth[0];
    if (first) put((first[0] + first[1]) / 2);
  };

  const keys = {
    ArrowLeft: (e) => (e.shiftKey ? border(-1) : put((cursor ?? from) - (to - from) / 100)),
    ArrowRight: (e) => (e.shiftKey ? border(1) : put((cursor ?? from) + (to - from) / 100)),
    '+': () => zoom(0.5), '=': () => zoom(0.5), '-': () => zoom(2),
    0: () => setView(0, bag.length), Home: () => put(0), End: () => put(bag.length),
    PageUp: () => put((cursor ?? from) - (to - from)),
    PageDown: () => put((cursor ?? from) + (to - from)),
    n: () => errorFrom(1), p: () => errorFrom(-1),
  };
  canvas.addEventListener('keydown', (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || !keys[e.key]) return;
    e.preventDefault();
    keys[e.key](e);
  });
  canvas.addEventListener('wheel', (e) => {
    if (e.ctrlKey || e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY)) {
      e.preventDefault();
      const away = (e.deltaX || e.deltaY) / canvas.clientWidth * (to - from);
      if (e.ctrlKey) zoom(Math.exp(e.deltaY / 300), time(e.offsetX));
      else setView(from + away, to + away);
    }
  }, { passive: false });

  const fingers = new Map();
  let drag = null;
  const place = (e) => e.clientX - canvas.getBoundingClientRect().left;
  canvas.addEventListener('pointerdown', (e) => {
    fingers.set(e.pointerId, place(e));
    canvas.setPointerCapture(e.pointerId);
    drag = { x: place(e), from, to, moved: false };
  });
  canvas.addEventListener('pointermove', (e) => {
    if (!fingers.has(e.pointerId)) {
      if (e.pointerType === 'mouse') put(Math.min(Math.max(time(place(e)), from), to));
      return;
    }
    const before = [...fingers.values()];
    fingers.set(e.pointerId, place(e));
    const now = [...fingers.values()];
    if (now.length === 2) {
      const spread = Math.abs(before[0] - before[1]) / Math.max(8, Math.abs(now[0] - now[1]));
      drag.moved = true;
      zoom(spread, time((now[0] + now[1]) / 2));
    } else if (drag && (drag.moved || Math.abs(place(e) - drag.x) > 5)) {
      drag.moved = true;
      const away = (drag.x - place(e)) / (canvas.clientWidth - SIDE()) * (drag.to - drag.from);
      setView(drag.from + away, drag.to + away);
    }
  });
  const lift = (e) => {
    if (drag && !drag.moved && e.type === 'pointerup') put(time(place(e)));
    fingers.delete(e.pointerId);
    drag = fingers.size ? { x: [...fingers.values()][0], from, to, moved: true } : null;
  };
  canvas.addEventListener('pointerup', lift);
  canvas.addEventListener('pointercancel', lift);

  board.querySelectorAll('.strip').forEach((strip) => {
    const go = (e) => {
      const box_ = strip.getBoundingClientRect();
      const t = (e.clientX - box_.left) / box_.width * bag.length;
      const half = (to - from) / 2;
      setView(t - half, t + half);
    };
    strip.addEventListener('pointerdown', go);
    strip.addEventListener('pointermove', (e) => { if (e.buttons) go(e); });
  });
  board.querySelectorAll('button[data-do]').forEach((button) => {
    const act = { in: () => zoom(0.5), out: () => zoom(2), fit: () => setView(0, bag.length),
      next: () => errorFrom(1), before: () => errorFrom(-1) }[button.dataset.do];
    button.addEventListener('click', act);
  });
  document.querySelectorAll('button[data-at]').forEach((button) => {
    button.addEventListener('click', () => {
      choose(Number(button.dataset.bag));
      const t = Number(button.dataset.at);
      setView(t - 15000, t + 15000);
      put(t);
      document.getElementById('timeline').scrollIntoView();
      canvas.focus({ preventScroll: true });
    });
  });
  if (choice) choice.addEventListener('change', () => choose(Number(choice.value)));
  if (others) others.addEventListener('change', () => { draw(); describe(); });

  const refresh = () => { readInk(); draw(); };
  new ResizeObserver(later).observe(canvas.parentElement);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', refresh);
  window.addEventListener('beforeprint', () => { setView(0, bag.length); refresh(); });
  matchMedia('print').addEventListener('change', refresh);
  window.addEventListener('afterprint', refresh);
  board.classList.add('live');
  readInk();
  choose(0);
})();
