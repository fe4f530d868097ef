// The labels of one recording: edits, undo, and saving. Nothing here knows the page.

const MOST_UNDO = 500;
const SHORTEST = 0.04;
const PAGE = crypto.randomUUID();

export const sameTime = (a, b) => Math.abs(a - b) < 0.0005;

export function keyOf(label, heads) {
  return [label.start.toFixed(3), label.stop.toFixed(3),
    ...heads.map(head => label.classes[head] || '')].join('\u0000');
}

export function textOf(classes, heads) {
  return [...new Set(heads.map(head => classes[head]).filter(Boolean))].join(' ');
}

/** Return the times of [0, length] that no span covers, but for slivers. */
export function gaps(spans, length) {
  const free = [];
  let end = 0;
  for (const {start, stop} of [...spans].sort((a, b) => a.start - b.start)) {
    if (start - end > SHORTEST) free.push({start: end, stop: start});
    end = Math.max(end, stop);
  }
  if (length - end > SHORTEST) free.push({start: end, stop: length});
  return free;
}

/** Merge two edits of the same labels: what either deleted is gone, what either added stays. */
export function merge(base, mine, theirs, heads) {
  const key = label => keyOf(label, heads);
  const [before, own, other] = [base, mine, theirs].map(each => new Map(each.map(l => [key(l), l])));
  const merged = [];
  for (const [k, label] of own) if (other.has(k) || !before.has(k)) merged.push(other.get(k) || label);
  for (const [k, label] of other) if (!own.has(k) && !before.has(k)) merged.push(label);
  return merged;
}

export class Labels {
  /** @param send posts {name, revision, labels} and returns {status, body}. */
  constructor(name, length, heads, background, loaded, send, changed) {
    Object.assign(this, {name, length, heads, background, send, changed});
    this.problems = loaded.problems;
    this.list = loaded.labels;
    this.revision = loaded.revision;
    this.base = loaded.labels;
    this.past = [];
    this.future = [];
    this.state = 'saved';
    this.error = '';
    this.conflict = null;
    this.saving = false;
    this.saves = 0;  // that have begun: what was loaded before is older
    this.complete = this.isComplete();
  }

  get dirty() { return this.state !== 'saved'; }

  isBackground(label) {
    return this.heads.some(head => label.classes[head] === this.background);
  }

  backgroundClasses() {
    return Object.fromEntries(this.heads.map(head => [head, this.background]));
  }

  isComplete() {
    return this.list.some(label => this.isBackground(label))
      && gaps(this.list, this.length).length === 0;
  }

  /** Take a new list as one step of undo, and save it. */
  edit(list, complete = this.complete) {
    this.past.push({list: this.list, complete: this.complete});
    if (this.past.length > MOST_UNDO) this.past.shift();
    this.future = [];
    this.take(list, complete);
  }

  take(list, complete) {
    this.complete = complete;
    const actions = list.filter(label => !this.isBackground(label));
    const idle = list.filter(label => this.isBackground(label));
    this.list = [...actions, ...(complete ? this.filled(actions, idle) : this.cropped(idle, actions))]
      .sort((a, b) => a.start - b.start || a.stop - b.stop);
    this.state = 'unsaved';
    this.keepDraft();
    this.changed();
    this.save();
  }

  /** Return background labels of all time without an action; equal ones keep their columns. */
  filled(actions, idle) {
    return gaps(actions, this.length).map(({start, stop}) =>
      idle.find(each => sameTime(each.start, start) && sameTime(each.stop, stop))
      || {start, stop, classes: this.backgroundClasses(), cells: null});
  }

  /** Return background labels without the time of actions. */
  cropped(idle, actions) {
    return idle.flatMap(label => {
      const inside = actions.filter(a => a.start < label.stop && a.stop > label.start);
      if (!inside.length) return [label];
      const moved = inside.map(a => ({start: a.start - label.start, stop: a.stop - label.start}));
      return gaps(moved, label.stop - label.start).map(({start, stop}) => (
        {...label, start: label.start + start, stop: label.start + stop}));
    });
  }

  add(start, stop, classes) {
    const label = {start: Math.max(0, start), stop: Math.min(this.length, stop), classes, cells: null};
    if (label.stop - label.start < SHORTEST) return null;
    this.edit([...this.list, label]);
    return this.list.find(each => each === label) || null;
  }

  replace(old, change) {
    const label = {...old, ...change};
    if (label.stop - label.start < SHORTEST) return old;
    this.edit(this.list.map(each => each === old ? label : each));
    return this.list.find(each => each === label) || null;
  }

  remove(label) { this.edit(this.list.filter(each => each !== label)); }

  setComplete(complete) {
    this.edit(complete ? this.list : this.list.filter(label => !this.isBackground(label)), complete);
  }

  undo() { this.step(this.past, this.future); }

  redo() { this.step(this.future, this.past); }

  step(from, to) {
    if (!from.length) return;
    to.push({list: this.list, complete: this.complete});
    const {list, complete} = from.pop();
    this.take(list, complete);
  }

  async save() {
    if (this.saving || this.conflict) return;
    this.saving = true;
    clearTimeout(this.retry);
    while (this.state !== 'saved' && !this.conflict) {
      const sent = this.list;
      this.saves++;
      const {status, body} = await this.send(
        {name: this.name, revision: this.revision, labels: sent});
      if (status === 200) {
        [this.revision, this.base, this.error, this.problems] = [
          body.revision, sent, '', body.problems];
        if (this.list === sent) this.state = 'saved';
        this.keepDraft();
      } else if (status === 409) {
        this.conflict = body;
      } else {
        this.state = 'failed';
        this.error = body.error || 'the server cannot be reached';
        this.retry = setTimeout(() => this.save(), 5000);
        break;
      }
    }
    this.saving = false;
    this.changed();
  }

  /** Take what others saved, if nothing of this page is unsaved. */
  refresh(loaded) {
    if (this.saving || loaded.revision === this.revision) return false;
    if (this.dirty) {
      this.conflict = loaded;
      this.changed();
      return false;
    }
    this.past.push({list: this.list, complete: this.complete});
    [this.list, this.base, this.revision, this.problems] = [
      loaded.labels, loaded.labels, loaded.revision, loaded.problems];
    this.complete = this.isComplete();
    this.changed();
    return true;
  }

  /** End a conflict: 'merge', 'mine' or 'theirs'; each is a step of undo. */
  resolve(how) {
    const {labels, revision} = this.conflict;
    const merged = {
      merge: () => merge(this.base, this.list, labels, this.heads),
      mine: () => this.list, theirs: () => labels}[how]();
    [this.conflict, this.revision, this.base] = [null, revision, labels];
    this.edit(merged, how === 'theirs' ? false : this.complete);
    if (how === 'theirs') this.complete = this.isComplete();
  }

  get draftPrefix() { return `karmma label ${this.file} ${this.name} `; }

  /** Keep unsaved edits in the browser, for a page that is closed before they are saved. */
  keepDraft() {
    const key = this.draftPrefix + PAGE;
    try {
      if (!this.dirty) localStorage.removeItem(key);
      else localStorage.setItem(key, JSON.stringify({base: this.base, list: this.list}));
    } catch { /* a browser without storage: the edits stay in the page */ }
  }

  /** Merge the unsaved edits of earlier pages into the labels; true if there were any. */
  restoreDrafts() {
    const drafts = [];
    try {
      for (const key of Object.keys(localStorage)) {
        if (!key.startsWith(this.draftPrefix)) continue;
        drafts.push([key, JSON.parse(localStorage.getItem(key))]);
      }
    } catch { return false; }
    if (!drafts.length) return false;
    this.edit(drafts.reduce(
      (list, [, draft]) => merge(draft.base, draft.list, list, this.heads), this.list), false);
    for (const [key] of drafts) localStorage.removeItem(key);  // now in the draft of this page
    return true;
  }

  /** Return the labels as a label file of this recording. */
  toCsv() {
    const quoted = text => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    const rows = this.list.map(label => [this.name, label.start.toFixed(3), label.stop.toFixed(3),
      ...this.heads.map(head => label.classes[head] || '')]);
    return [['recording', 'start', 'stop', ...this.heads], ...rows]
      .map(row => row.map(quoted).join(',') + '\n').join('');
  }
}
