// The page: what is shown, and what keys and buttons do.

import {Labels, textOf} from './labels.js';
import {Classes, ClassDialog, element, fill, item, span, swatch} from './lists.js';
import {Player} from './player.js';
import {exportAddress, getBytes, getFrame, getImage, getJson, postJson} from './requests.js';
import {clock, Timeline} from './timeline.js';

const POLL_MS = 4000;
const $ = id => document.getElementById(id);
const state = {
  labels: null, selected: null, mark: null, pending: null, signals: null, image: null,
  proposals: [], proposal: null, dismissed: new Map(), documents: new Map(), recordings: []};
let heads, classes, dialog, player, timeline, background, hasModel = false;

const text = each => textOf(each.classes, heads);
const announce = message => { $('live').textContent = message; $('hint').textContent = message; };

async function start() {
  let given;
  try { given = await getJson('state'); } catch (error) { show(error.message); return; }
  ({heads, background} = given);
  hasModel = Boolean(given.model);
  state.file = given.file;
  state.recordings = given.recordings;
  document.title = `${given.file} – karmma label`;
  for (const id of ['background', 'rest']) $(id).textContent = background;
  classes = new Classes(heads, background, given.classes);
  timeline = new Timeline($('timeline'), $('overview'), {
    seek: time => player.seek(time), select, view: () => loadSignals(),
    move: (label, change) => { state.selected = state.labels.replace(label, change); refresh(); }});
  player = new Player($('frame'), $('blank'),
    (camera, time, which) => getFrame({name: state.labels.name, camera, time, which}),
    (from, to) => getBytes('audio', {name: state.labels.name, start: from, stop: to}), moved);
  dialog = new ClassDialog($('class-dialog'), classes,
    (name, idle) => timeline.colour(name, idle), assign);
  $('recordings').append(...given.recordings.map(({name}) => element('option', {value: name}, name)));
  $('recordings').addEventListener('change', event => { open(event.target.value); event.target.blur(); });
  $('cameras').addEventListener('change', event => { player.camera = event.target.value; player.show(); event.target.blur(); });
  $('speed').addEventListener('change', event => { player.setSpeed(Number(event.target.value)); event.target.blur(); });
  $('complete').addEventListener('change', event => setComplete(event.target.checked));
  $('mute').addEventListener('click', () => {
    player.muted = !player.muted;
    $('mute').setAttribute('aria-pressed', player.muted);
    player.setSpeed(player.speed);
  });
  for (const button of document.querySelectorAll('[data-do]'))
    button.addEventListener('click', () => actions[button.dataset.do]());
  for (const button of document.querySelectorAll('[data-close]'))
    button.addEventListener('click', () => button.closest('dialog').close());
  $('help').addEventListener('click', () => $('help-dialog').showModal());
  $('export').addEventListener('click', showExports);
  $('copy').addEventListener('click', saveCopy);
  document.addEventListener('keydown', key);
  addEventListener('beforeunload', event => {
    if ([...state.documents.values()].some(each => each.dirty)) event.preventDefault();
  });
  setInterval(poll, POLL_MS);
  document.addEventListener('visibilitychange', poll);
  const wanted = decodeURIComponent(location.hash.slice(1));
  await open(state.recordings.some(each => each.name === wanted) ? wanted : state.recordings[0].name);
}

async function open(name) {
  let given, saves = state.documents.get(name)?.saves;
  try {
    given = await getJson('recording', {name});
  } catch (error) {
    show(`${name}: ${error.message}`);
    return;
  }
  hideBanner();
  history.replaceState(null, '', `#${encodeURIComponent(name)}`);
  $('recordings').value = name;
  let labels = state.documents.get(name);
  if (labels) {
    if (saves === labels.saves) labels.refresh(given);
  } else {
    labels = new Labels(name, given.length, heads, background, given,
      body => postJson('labels', body), () => changed(name));
    labels.file = state.file;
    state.documents.set(name, labels);
    for (const label of labels.list) classes.use(label.classes);
    if (labels.restoreDrafts()) {
      for (const label of labels.list) classes.use(label.classes);
      announce('unsaved changes of an earlier page are taken over');
    }
  }
  Object.assign(state, {labels, selected: null, mark: null, pending: null, signals: null,
    image: null, proposals: [], proposal: null});
  $('cameras').replaceChildren(...given.cameras.map(each => element('option', {}, each)));
  $('cameras').parentElement.hidden = given.cameras.length < 2;
  for (const note of given.notes) announce(note);
  $('mute').hidden = !given.audio;
  player.open(labels.length, given.cameras[0] || '', given.audio);
  timeline.show(model());
  refresh();
  loadSignals();
  if (hasModel) loadProposals(name);
}

function changed(name) {
  if (state.labels && state.labels.name === name) refresh();
}

function model() {
  const {labels, selected, mark, pending, signals, image, proposal} = state;
  return {name: labels.name, length: labels.length, labels: labels.list, selected, mark, pending,
    signals, image, proposals: shownProposals(), proposal, time: player.time, text,
    isBackground: each => labels.isBackground(each)};
}

function moved() {
  $('time').textContent = clock(player.time);
  $('play').textContent = player.playing ? '⏸' : '▶';
  timeline.follow(player.time);
  timeline.show(model());
}

function refresh() {
  const {labels} = state;
  if (!labels.list.includes(state.selected)) state.selected = null;
  timeline.show(model());
  showSave();
  showClasses();
  fill($('labels'), [
    ...labels.problems.map(each => element('p', {className: 'problem', textContent: `kept as it is: ${each}`})),
    ...labels.list.map(each => item(
      [swatch(timeline.colour(text(each), labels.isBackground(each))),
        element('span', {className: 'name', textContent: text(each)}), span(each)],
      each === state.selected, () => { select(each); player.seek(each.start); }))]);
  $('labels-note').textContent = labels.list.length;
  $('complete').checked = labels.complete;
  $('undo').disabled = !labels.past.length;
  $('redo').disabled = !labels.future.length;
  $('time').textContent = clock(player.time);
  showProposals();
}

function showClasses() {
  const counts = new Map();
  const count = (name, n) => counts.set(name, (counts.get(name) || 0) + n);
  for (const [name, {counts: written}] of classes.known)
    for (const [recording, n] of Object.entries(written))
      if (!state.documents.has(recording)) count(name, n);
  for (const document of state.documents.values())
    for (const label of document.list) count(text(label), 1);
  const rows = [...classes.slots, ...[...counts.keys()].filter(name => !classes.slots.includes(name))];
  fill($('classes'), rows.map((name, i) => {
    const known = classes.known.get(name), idle = known && classes.idle(known.classes);
    const digit = classes.slots.indexOf(name) + 1;
    return item([element('kbd', {textContent: idle ? 'N' : digit && digit < 10 ? digit : '·'}),
      swatch(timeline.colour(name, idle)), element('span', {className: 'name', textContent: name}),
      element('span', {className: 'count', textContent: counts.get(name) || 0})],
    false, () => assign(known.classes));
  }));
  $('classes-note').textContent = rows.length ? '' : 'none yet: mark In and Out, then enter one';
}

function showSave() {
  const {labels} = state, status = $('save');
  status.classList.toggle('failed', labels.state === 'failed');
  status.textContent = {
    saved: `saved in ${state.file}`, unsaved: 'saving…',
    failed: `not saved, tried again every 5 s: ${labels.error}`}[labels.state];
  $('copy').hidden = labels.state !== 'failed';
  if (labels.conflict) showConflict();
  else if (state.banner === 'conflict') hideBanner();
}

function show(message, ...buttons) {
  state.banner = buttons.length ? 'conflict' : 'message';
  $('banner').replaceChildren(element('p', {textContent: message}), ...buttons);
  $('banner').hidden = false;
}

function hideBanner() { $('banner').hidden = true; state.banner = ''; }

function showConflict() {
  if (state.banner === 'conflict') return;
  const {labels} = state;
  const button = (how, name) => element('button', {type: 'button', textContent: name,
    className: how === 'merge' ? 'main' : '',
    onclick: () => { hideBanner(); labels.resolve(how); for (const each of labels.list) classes.use(each.classes); refresh(); }});
  show('Another page or program has changed the labels of this recording. Nothing is lost: your '
    + 'changes are kept here, and Ctrl+Z brings them back after any choice.',
  button('merge', 'Merge both'), button('theirs', 'Reload theirs'), button('mine', 'Keep mine'));
}

async function poll() {
  if (document.hidden || !state.labels) return;
  const {labels} = state, {saves} = labels;
  try {
    const loaded = await getJson('labels', {name: labels.name});
    if (saves === labels.saves && labels.refresh(loaded)) {
      for (const each of labels.list) classes.use(each.classes);
      announce('labels that were changed elsewhere are loaded');
      refresh();
    }
  } catch { /* saving shows what is wrong */ }
}

function select(label) {
  state.selected = label;
  if (label) announce(`${text(label)}, ${clock(label.start)} to ${clock(label.stop)}`);
  refresh();
  $('labels').querySelector('[aria-current]')?.scrollIntoView({block: 'nearest'});
}

/** Give a class to the marked span, else to the chosen label, else request a mark. */
function assign(given) {
  const {classes: chosen, respelt} = classes.use(given), {labels} = state;
  const marked = state.pending || (state.mark !== null && markedSpan());
  if (marked) {
    Object.assign(state, {mark: null, pending: null});
    const label = labels.add(marked.start, marked.stop, chosen);
    if (!label && !labels.list.some(each => text(each) === textOf(chosen, heads))) announce('the mark is too short');
    state.selected = label;
  } else if (state.selected) {
    state.selected = labels.replace(state.selected, {classes: chosen});
  } else {
    announce('mark a span with In and Out, or choose a label first');
    return;
  }
  refresh();
  announce(`${textOf(chosen, heads)}${respelt ? ' (spelt as before)' : ''}`);
}

function markedSpan() {
  const [start, stop] = [state.mark, player.time].sort((a, b) => a - b);
  return {start, stop};
}

function setComplete(complete) {
  state.labels.setComplete(complete);
  if (complete) classes.use(state.labels.backgroundClasses());
  refresh();
  announce(complete ? `fully labelled: the rest is ${background}` : `the labels ${background} are removed`);
}

function neighbour(step) {
  const {list} = state.labels, index = list.indexOf(state.selected);
  const near = step > 0 ? list.findIndex(each => each.start > player.time - 1e-6)
    : list.findLastIndex(each => each.start < player.time - 1e-6);
  const label = list[index < 0 ? near : index + step];
  if (label) { select(label); player.seek(label.start); }
}

function border(side) {
  if (!state.selected) return announce('choose a label first');
  state.selected = state.labels.replace(state.selected, {[side]: player.time});
  refresh();
}

/** Undo or redo, and choose the label that has changed. */
function step(change) {
  const before = new Set(state.labels.list);
  change();
  state.selected = state.labels.list.find(each => !before.has(each)) || null;
  refresh();
}

const actions = {
  play: () => player.toggle(),
  previous: () => player.step('previous'),
  next: () => player.step('next'),
  in: () => {
    Object.assign(state, {mark: player.time, pending: null, selected: null});
    announce(`in at ${clock(player.time)}; go to the end and press O, a digit or N`);
    refresh();
  },
  out: () => {
    if (state.mark === null) return announce('press I at the start first');
    state.pending = markedSpan();
    state.mark = null;
    announce('press a digit, N for nothing, or Enter for another class');
    if (!classes.slots.length) actions.class();
    refresh();
  },
  class: () => {
    if (state.mark !== null) { state.pending = markedSpan(); state.mark = null; }
    if (!state.pending && !state.selected) return announce('mark a span with In and Out first');
    dialog.open(state.pending ? 'Class of the marked span' : 'Class of the label',
      state.pending ? {} : state.selected.classes);
  },
  nothing: () => assign(state.labels.backgroundClasses()),
  delete: () => {
    if (!state.selected) return announce('choose a label first');
    state.labels.remove(state.selected);
    state.selected = null;
    refresh();
  },
  undo: () => step(() => state.labels.undo()),
  redo: () => step(() => state.labels.redo()),
  'zoom-in': () => timeline.zoom(0.5),
  'zoom-out': () => timeline.zoom(2),
  'zoom-all': () => timeline.zoomAll(),
  accept: () => decide(true),
  reject: () => decide(false),
  proposal: () => nextProposal(),
};

const KEYS = {
  ' ': actions.play, i: actions.in, o: actions.out, c: actions.class, Enter: actions.class,
  n: actions.nothing, Delete: actions.delete, Backspace: actions.delete,
  '[': () => border('start'), ']': () => border('stop'),
  f: () => setComplete(!state.labels.complete), '+': actions['zoom-in'], '=': actions['zoom-in'],
  '-': actions['zoom-out'], 0: actions['zoom-all'], '?': () => $('help-dialog').showModal(),
  ArrowLeft: event => event.shiftKey ? player.seek(player.time - 1) : player.step('previous'),
  ArrowRight: event => event.shiftKey ? player.seek(player.time + 1) : player.step('next'),
  ArrowUp: () => neighbour(-1), ArrowDown: () => neighbour(1),
  Home: () => player.seek(0), End: () => player.seek(state.labels.length),
  PageUp: () => other(-1), PageDown: () => other(1),
  p: actions.proposal, a: actions.accept, x: actions.reject,
  Escape: () => { Object.assign(state, {mark: null, pending: null, selected: null}); refresh(); },
};

function other(step) {
  const names = state.recordings.map(each => each.name);
  const name = names[names.indexOf(state.labels.name) + step];
  if (name) open(name);
}

function key(event) {
  if (document.querySelector('dialog[open]') || !state.labels || event.altKey) return;
  // A field of a dialog that was closed just now may still have the focus.
  const target = event.target.closest('dialog') ? document.body : event.target;
  if (target.matches('select, input:not([type=checkbox])')) return;
  const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  let action = null;
  if (event.ctrlKey || event.metaKey) {
    action = {z: event.shiftKey ? actions.redo : actions.undo, y: actions.redo}[pressed];
  } else if (target.matches('button, input') && (pressed === ' ' || pressed === 'Enter')) {
    return;  // the button itself
  } else if (/^[1-9]$/.test(pressed)) {
    const given = classes.classesOf(Number(pressed));
    action = () => given ? assign(given) : announce(`no class has the digit ${pressed} yet`);
  } else {
    action = KEYS[pressed];
  }
  if (!action) return;
  event.preventDefault();
  action(event);
}

function shownProposals() {
  const dismissed = state.dismissed.get(state.labels.name) || new Set();
  const {labels} = state, actions = labels.list.filter(each => !labels.isBackground(each));
  return state.proposals.filter(each => !dismissed.has(each) && !isCovered(each, actions));
}

function showProposals() {
  $('proposals-section').hidden = !hasModel;
  if (!hasModel) return;
  const shown = shownProposals();
  fill($('proposals'), shown.slice(0, 50).map(each => item(
    [swatch(timeline.colour(text(each), false)),
      element('span', {className: 'name', textContent: text(each)}),
      element('span', {className: 'count', textContent: `${Math.round(100 * each.score)} %`}),
      span(each)], each === state.proposal, () => chooseProposal(each))));
  for (const name of ['accept', 'reject', 'proposal'])
    document.querySelector(`[data-do=${name}]`).disabled = !shown.length;
}

function chooseProposal(proposal) {
  Object.assign(state, {proposal, selected: null, mark: null, pending: null});
  if (proposal) {
    player.seek(proposal.start);
    announce(`proposed: ${text(proposal)}, ${Math.round(100 * proposal.score)} %`);
  }
  refresh();
  $('proposals').querySelector('[aria-current]')?.scrollIntoView({block: 'nearest'});
}

function nextProposal() {
  const shown = shownProposals();
  if (!shown.length) return announce(hasModel ? 'no proposal is left' : 'start with --model for proposals');
  chooseProposal(shown[(shown.indexOf(state.proposal) + 1) % shown.length]);
}

/** Accept or reject the chosen proposal, and go to the next. */
function decide(accept) {
  const shown = shownProposals(), {proposal, labels} = state;
  if (!shown.includes(proposal)) return nextProposal();
  const next = shown[shown.indexOf(proposal) + 1] || shown[0];
  if (!accept) dismiss(proposal);
  else labels.add(proposal.start, proposal.stop, classes.use(proposal.classes).classes);
  announce(`${text(proposal)} ${accept ? 'accepted' : 'rejected'}`);
  chooseProposal(next === proposal ? null : next);
}

function dismiss(proposal) {
  const {name} = state.labels;
  if (!state.dismissed.has(name)) state.dismissed.set(name, new Set());
  state.dismissed.get(name).add(proposal);
  postJson('rejections', {name, proposal}).then(({status, body}) => {
    if (status !== 200) announce(`the rejection is not kept: ${body.error}`);
  });
}

/** Return whether labels have more than half of the time of a proposal. */
function isCovered({start, stop}, labels) {
  const shared = labels.map(each =>
    Math.max(0, Math.min(stop, each.stop) - Math.max(start, each.start)));
  return shared.reduce((sum, each) => sum + each, 0) > (stop - start) / 2;
}

async function loadProposals(name) {
  let given;
  try { given = await getJson('proposals', {name}); } catch (error) { return announce(error.message); }
  if (state.labels.name !== name) return;
  $('proposals-note').textContent = given.error || (given.done ? 'least certain first'
    : `computing, ${Math.round(100 * given.progress)} %`);
  if (!given.done) { setTimeout(() => loadProposals(name), 1000); return; }
  state.offered ||= new Map();
  if (!state.offered.has(name))
    state.offered.set(name, given.proposals.filter(each => !isCovered(each, state.labels.list)));
  state.proposals = state.offered.get(name);
  if (!given.error && !shownProposals().length) $('proposals-note').textContent = 'none is left';
  refresh();
}

/** Fetch the signals of the view and a margin around it. */
function loadSignals(delay = 120) {
  clearTimeout(state.loading);
  state.loading = setTimeout(async () => {
    const {labels} = state, {start: from, stop: to} = timeline.view, margin = (to - from) / 2;
    const start = Math.max(0, from - margin), stop = Math.min(labels.length, to + margin);
    if (!(stop > start)) return;
    const width = $('timeline').clientWidth * (stop - start) / (to - from);
    const wanted = {name: labels.name, start, stop, columns: Math.min(3000, Math.max(50, Math.round(width)))};
    let signals;
    try { signals = await getJson('signals', wanted); } catch { return; }
    const bitmap = signals.waveform && await getImage('spectrogram', wanted);
    if (state.labels !== labels) return;
    state.signals = signals;
    state.image = bitmap && {bitmap, start: signals.start, stop: signals.stop};
    if (signals.error) announce(signals.error);
    timeline.show(model());
    if (signals.progress < 1) loadSignals(700);
  }, delay);
}

/** Download the labels of the page, without the server. */
function saveCopy() {
  const {labels} = state, href = URL.createObjectURL(new Blob([labels.toCsv()], {type: 'text/csv'}));
  element('a', {href, download: `${labels.name}.csv`}).click();
}

const EXPORTS = [['csv', 'Label file, all recordings', false], ['audacity', 'Audacity', true],
  ['elan', 'ELAN', true], ['via', 'VIA 3', false], ['label-studio', 'Label Studio', false]];

function showExports() {
  const {name} = state.labels;
  $('exports').replaceChildren(...EXPORTS.map(([format, title, single]) => element('li', {},
    element('a', {href: exportAddress(single ? {format, name} : {format}), download: '',
      textContent: single ? `${title}, ${name}` : title}))));
  $('export-dialog').showModal();
}

start();
