// The timeline: labels, proposals, audio and sensors over time, drawn on a canvas.

const RULER = 22, LABEL = 34, PROPOSAL = 24, WAVE = 44, SPECTROGRAM = 60, TRACK = 22, GAP = 4;
const REACH = 7;  // pixels around a border that belong to it
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
const MOST_LEVELS = 4;

export function clock(time, digits = 2) {
  const [minutes, seconds] = [Math.floor(time / 60), time % 60];
  const text = seconds.toFixed(digits).padStart(digits ? 3 + digits : 2, '0');
  return `${minutes}:${text}`;
}

/** Return the level of each label: those that overlap stand below each other. */
export function levels(labels) {
  const ends = [];
  return labels.map(label => {
    let level = ends.findIndex(end => end <= label.start + 1e-6);
    if (level < 0) level = ends.length < MOST_LEVELS ? ends.length : MOST_LEVELS - 1;
    ends[level] = label.stop;
    return level;
  });
}

export class Timeline {
  /** @param on {seek(time, done), select(label), move(label, change), view()} */
  constructor(canvas, overview, on) {
    Object.assign(this, {canvas, overview, on});
    this.view = {start: 0, stop: 1};
    this.model = null;
    this.drag = null;
    this.tint = new Map();
    canvas.addEventListener('pointerdown', event => this.press(event));
    canvas.addEventListener('pointermove', event => this.hover(event));
    canvas.addEventListener('pointerup', event => this.release(event));
    canvas.addEventListener('pointercancel', () => { this.drag = null; this.draw(); });
    canvas.addEventListener('wheel', event => this.wheel(event), {passive: false});
    overview.addEventListener('pointerdown', event => this.jump(event));
    overview.addEventListener('pointermove', event => { if (event.buttons) this.jump(event); });
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw());
  }

  /** Show a model: {length, labels, selected, time, mark, pending, proposals, proposal, signals,
      image, isBackground(label), text(label)}. */
  show(model) {
    const other = !this.model || this.model.name !== model.name;
    this.model = model;
    if (other) this.zoomAll();
    this.draw();
  }

  zoomAll() { this.setView(0, this.model.length); }

  setView(start, stop) {
    const most = Math.max(this.model.length, 0.1);
    const span = Math.min(most, Math.max(0.5, stop - start));
    const first = Math.min(Math.max(0, start), most - span);
    this.view = {start: first, stop: first + span};
    this.on.view();
    this.draw();
  }

  zoom(factor, centre = this.model.time) {
    const {start, stop} = this.view;
    const middle = Math.min(Math.max(centre, start), stop);
    this.setView(middle - (middle - start) * factor, middle + (stop - middle) * factor);
  }

  /** Move the view so that a time is in it. */
  follow(time) {
    const {start, stop} = this.view, span = stop - start;
    if (time < start || time > stop) this.setView(time - span * 0.2, time + span * 0.8);
  }

  x(time) { return (time - this.view.start) / (this.view.stop - this.view.start) * this.width; }

  time(x) {
    const time = this.view.start + x / this.width * (this.view.stop - this.view.start);
    return Math.min(Math.max(0, time), this.model.length);
  }

  colour(text, background) {
    if (!this.tint.has(text)) this.tint.set(text, this.tint.size);
    const hue = (205 + this.tint.get(text) * 137.5) % 360;
    if (background) return {fill: this.css('--idle'), line: this.css('--idle-line')};
    return this.dark ? {fill: `hsl(${hue} 42% 28%)`, line: `hsl(${hue} 60% 66%)`}
      : {fill: `hsl(${hue} 62% 86%)`, line: `hsl(${hue} 60% 36%)`};
  }

  get dark() { return matchMedia('(prefers-color-scheme: dark)').matches; }

  css(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

  layout() {
    const {labels, proposals, signals} = this.model;
    const level = levels(labels);
    let y = RULER;
    const rows = {level, labels: y};
    y += LABEL * (1 + Math.max(0, ...level)) + GAP;
    if (proposals.length) { rows.proposals = y; y += PROPOSAL + GAP; }
    if (signals && signals.waveform) {
      rows.waveform = y; y += WAVE + GAP;
      rows.spectrogram = y; y += SPECTROGRAM + GAP;
    }
    rows.tracks = [];
    for (const track of signals ? signals.tracks : []) { rows.tracks.push([y, track]); y += TRACK; }
    return {...rows, height: y + GAP};
  }

  draw() {
    if (!this.model || this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.paint(); });
  }

  prepare(canvas, height) {
    const scale = devicePixelRatio || 1, width = canvas.clientWidth;
    canvas.style.height = `${height}px`;
    const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    const context = canvas.getContext('2d');
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = '12px system-ui, "DejaVu Sans", sans-serif';
    context.textBaseline = 'middle';
    return [context, width];
  }

  paint() {
    this.rows = this.layout();
    const [context, width] = this.prepare(this.canvas, this.rows.height);
    this.width = width;
    this.paintRuler(context);
    this.paintSignals(context);
    this.model.labels.forEach((label, i) => this.paintLabel(context, label, this.rows.level[i]));
    for (const each of this.model.proposals) this.paintProposal(context, each);
    this.paintMark(context);
    const x = this.x(this.model.time);
    context.fillStyle = this.css('--mark');
    context.fillRect(x - 1, 0, 2, this.rows.height);
    context.beginPath();
    context.moveTo(x - 6, 0); context.lineTo(x + 6, 0); context.lineTo(x, 9);
    context.fill();
    this.paintOverview();
  }

  paintRuler(context) {
    const span = this.view.stop - this.view.start;
    const step = STEPS.find(each => span / each < this.width / 70) || 7200;
    context.fillStyle = this.css('--soft');
    context.strokeStyle = this.css('--rule');
    context.beginPath();
    for (let t = Math.ceil(this.view.start / step) * step; t <= this.view.stop; t += step) {
      const x = Math.round(this.x(t)) + 0.5;
      context.moveTo(x, 0); context.lineTo(x, this.rows.height);
      if (x < this.width - 36) context.fillText(clock(t, step < 1 ? 1 : 0), x + 4, RULER / 2);
    }
    context.stroke();
  }

  box(context, x, y, width, height, {fill, line}, dashed = false, thick = 1) {
    context.fillStyle = fill;
    context.strokeStyle = line;
    context.lineWidth = thick;
    context.setLineDash(dashed ? [4, 3] : []);
    context.beginPath();
    context.roundRect(x + 0.5, y + 0.5, Math.max(2, width - 1), height - 1, 4);
    if (fill) context.fill();
    context.stroke();
    context.setLineDash([]);
    context.lineWidth = 1;
  }

  paintText(context, text, x, y, width) {
    const [from, to] = [Math.max(x, 0), Math.min(x + width, this.width)];
    if (to - from < 14) return;
    context.save();
    context.beginPath();
    context.rect(from, y - 14, to - from - 3, 28);
    context.clip();
    context.fillStyle = this.css('--ink');
    context.fillText(text, from + 6, y);
    context.restore();
  }

  paintLabel(context, given, level) {
    const label = this.drag && this.drag.label === given ? {...given, ...this.drag.change} : given;
    const [x, stop] = [this.x(label.start), this.x(label.stop)];
    if (stop < 0 || x > this.width) return;
    const y = this.rows.labels + level * LABEL, text = this.model.text(label);
    const chosen = this.model.selected === given;
    const colour = this.colour(text, this.model.isBackground(label));
    this.box(context, x, y + 1, stop - x, LABEL - 3,
      chosen ? {...colour, line: this.css('--ink')} : colour, false, chosen ? 2 : 1);
    this.paintText(context, text, x, y + LABEL / 2, stop - x);
  }

  paintProposal(context, each) {
    const [x, stop] = [this.x(each.start), this.x(each.stop)];
    if (stop < 0 || x > this.width) return;
    const chosen = this.model.proposal === each, {line} = this.colour(this.model.text(each), false);
    this.box(context, x, this.rows.proposals + 1, stop - x, PROPOSAL - 2,
      {fill: '', line: chosen ? this.css('--ink') : line}, true, chosen ? 2 : 1);
    this.paintText(context, `${this.model.text(each)} ${Math.round(100 * each.score)} %`,
      x, this.rows.proposals + PROPOSAL / 2, stop - x);
  }

  paintMark(context) {
    const {mark, pending, time} = this.model;
    const span = pending || (mark === null ? null : {start: mark, stop: time});
    if (!span) return;
    const [a, b] = [this.x(span.start), this.x(span.stop)].sort((p, q) => p - q);
    context.globalAlpha = 0.25;
    context.fillStyle = this.css('--mark');
    context.fillRect(a, RULER - 4, Math.max(2, b - a), this.rows.height);
    context.globalAlpha = 1;
  }

  paintSignals(context) {
    const {signals, image} = this.model;
    if (!signals) return;
    const start = this.x(signals.start), step = (this.x(signals.stop) - start) / signals.columns;
    if (this.rows.waveform !== undefined) {
      const middle = this.rows.waveform + WAVE / 2, [low, high] = signals.waveform;
      context.fillStyle = this.css('--wave');
      for (let i = 0; i < low.length; i++) {
        const top = middle - high[i] / 127 * WAVE / 2, bottom = middle - low[i] / 127 * WAVE / 2;
        context.fillRect(start + i * step, top, Math.max(1, step), Math.max(1, bottom - top));
      }
      if (image && image.start === signals.start && image.stop === signals.stop)
        context.drawImage(image.bitmap, start, this.rows.spectrogram, step * signals.columns, SPECTROGRAM);
    }
    for (const [y, track] of this.rows.tracks) {
      context.fillStyle = this.css('--fine');
      track.values.forEach((value, i) => {
        if (!value) return;
        context.globalAlpha = 0.8;
        const height = Math.max(1.5, value / 255 * (TRACK - 4));
        context.fillRect(start + i * step, y + TRACK - 2 - height, Math.max(1, step + 0.3), height);
      });
      context.globalAlpha = 1;
      this.paintName(context, track.label, y + TRACK / 2);
    }
    if (this.rows.waveform !== undefined) this.paintName(context, 'audio', this.rows.waveform + 9);
  }

  paintName(context, text, y) {
    const width = context.measureText(text).width;
    context.globalAlpha = 0.82;
    context.fillStyle = this.css('--raised');
    context.fillRect(0, y - 8, width + 10, 16);
    context.globalAlpha = 1;
    context.fillStyle = this.css('--soft');
    context.fillText(text, 5, y);
  }

  paintOverview() {
    const [context, width] = this.prepare(this.overview, 26);
    const {labels, length, time} = this.model, scale = width / Math.max(length, 0.1);
    for (const label of labels) {
      context.fillStyle = this.colour(this.model.text(label), this.model.isBackground(label)).line;
      context.fillRect(label.start * scale, 8, Math.max(1, (label.stop - label.start) * scale - 0.5), 10);
    }
    context.strokeStyle = this.css('--ink');
    context.lineWidth = 2;
    const x = this.view.start * scale;
    context.strokeRect(x + 1, 1, Math.max(4, (this.view.stop - this.view.start) * scale - 2), 24);
    context.fillStyle = this.css('--mark');
    context.fillRect(time * scale - 1, 0, 2, 26);
  }

  /** Return the label and the border under a point. */
  at(x, y) {
    const {labels, selected} = this.model, {level} = this.rows;
    const row = labels.map((label, i) => [label, i]).filter(([, i]) => {
      const top = this.rows.labels + level[i] * LABEL;
      return y >= top && y < top + LABEL;
    }).map(([label]) => label);
    const near = (label, side) => Math.abs(this.x(label[side]) - x) <= REACH;
    const order = [...row].sort((a, b) => (b === selected) - (a === selected));
    for (const label of order) {
      const sides = ['start', 'stop'].filter(side => near(label, side));
      if (sides.length) {
        const inside = x > this.x(label.start) && x < this.x(label.stop);
        if (inside || !row.some(l => l !== label && x > this.x(l.start) && x < this.x(l.stop)))
          return {label, side: sides.sort((a, b) =>
            Math.abs(this.x(label[a]) - x) - Math.abs(this.x(label[b]) - x))[0]};
      }
    }
    return {label: row.find(l => x >= this.x(l.start) && x <= this.x(l.stop)) || null, side: ''};
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  press(event) {
    if (event.button) return;
    const [x, y] = this.point(event), {label, side} = this.at(x, y);
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus();
    if (label) this.on.select(label);
    this.drag = {label: side ? label : null, side, change: null, x, seek: !side};
    if (!side) this.on.seek(this.time(x), false);
  }

  hover(event) {
    const [x, y] = this.point(event), drag = this.drag;
    if (!drag) {
      this.canvas.style.cursor = this.at(x, y).side ? 'ew-resize' : 'crosshair';
    } else if (drag.side && (drag.change || Math.abs(x - drag.x) > 2)) {
      const time = this.snap(this.time(x), drag.label);
      const {start, stop} = drag.label;
      drag.change = drag.side === 'start' ? {start: Math.min(time, stop - 0.05)}
        : {stop: Math.max(time, start + 0.05)};
      this.on.seek(drag.change.start ?? drag.change.stop, false);
      this.draw();
    } else if (drag.seek) {
      this.on.seek(this.time(x), false);
    }
  }

  release() {
    const drag = this.drag;
    this.drag = null;
    if (drag && drag.change) this.on.move(drag.label, drag.change);
    else if (drag && drag.label) this.on.seek(drag.label[drag.side], true);
    this.draw();
  }

  /** Return a border of another label that is near, else the time. */
  snap(time, own) {
    const reach = REACH / this.width * (this.view.stop - this.view.start);
    const near = this.model.labels.filter(each => each !== own).flatMap(l => [l.start, l.stop])
      .filter(each => Math.abs(each - time) < reach);
    return near.length ? near.sort((a, b) => Math.abs(a - time) - Math.abs(b - time))[0] : time;
  }

  wheel(event) {
    const span = this.view.stop - this.view.start;
    if (event.ctrlKey || event.metaKey) {
      this.zoom(Math.exp(event.deltaY * 0.002), this.time(this.point(event)[0]));
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      const move = (event.deltaX || event.deltaY) / this.width * span;
      this.setView(this.view.start + move, this.view.stop + move);
    } else {
      return;
    }
    event.preventDefault();
  }

  jump(event) {
    const box = this.overview.getBoundingClientRect();
    const time = (event.clientX - box.left) / box.width * this.model.length;
    const half = (this.view.stop - this.view.start) / 2;
    this.setView(time - half, time + half);
    this.on.seek(Math.min(Math.max(0, time), this.model.length), false);
  }
}
