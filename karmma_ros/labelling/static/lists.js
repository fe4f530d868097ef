// The lists beside the camera, and the dialog of classes.

import {textOf} from './labels.js';
import {clock} from './timeline.js';

export function element(tag, properties = {}, ...children) {
  const {dataset, style, ...rest} = properties, node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, dataset || {});
  for (const [name, value] of Object.entries(style || {})) node.style.setProperty(name, value);
  node.append(...children);
  return node;
}

export function swatch(colour) {
  return element('span', {className: 'swatch',
    style: {background: colour.fill, border: `1px solid ${colour.line}`}});
}

/** Replace the items of a list, and keep the focus on the item that had it. */
export function fill(list, items) {
  const focused = [...list.children].findIndex(item => item.contains(document.activeElement));
  list.replaceChildren(...items.map(item => element('li', {}, item)));
  if (focused >= 0) (list.children[Math.min(focused, items.length - 1)]
    ?.querySelector('button') || list).focus({preventScroll: true});
}

export function item(parts, current, press) {
  const button = element('button', {type: 'button', onclick: press}, ...parts);
  if (current) button.setAttribute('aria-current', 'true');
  return button;
}

export function span(label) {
  return element('span', {className: 'span', textContent:
    `${clock(label.start)} – ${clock(label.stop)}`});
}

/** Classes in the order of their first use; digits stand for the first nine. */
export class Classes {
  constructor(heads, background, counted) {
    Object.assign(this, {heads, background, slots: []});
    this.known = new Map();
    for (const {names, counts} of counted) {
      const classes = Object.fromEntries(heads.map((head, i) => [head, names[i]]).filter(p => p[1]));
      this.known.set(textOf(classes, heads), {classes, counts});
    }
    for (const [text, {classes}] of this.known) if (!this.idle(classes)) this.slots.push(text);
  }

  idle(classes) { return this.heads.some(head => classes[head] === this.background); }

  /** Return the classes with their spelling so far, and remember new ones. */
  use(classes) {
    const text = textOf(classes, this.heads), folded = text.toLowerCase();
    for (const [name, each] of this.known)
      if (name.toLowerCase() === folded) return {classes: each.classes, respelt: name !== text};
    this.known.set(text, {classes, counts: {}});
    if (!this.idle(classes)) this.slots.push(text);
    return {classes, respelt: false};
  }

  classesOf(digit) {
    const text = this.slots[digit - 1];
    return text === undefined ? null : this.known.get(text).classes;
  }

  names(head) {
    return [...new Set([...this.known.values()].map(each => each.classes[head]).filter(Boolean))]
      .sort();
  }
}

/** Let the user enter a class; call `done` with it. */
export class ClassDialog {
  constructor(dialog, classes, colour, done) {
    Object.assign(this, {dialog, classes, colour, done});
    this.heads = dialog.querySelector('#heads');
    this.matches = dialog.querySelector('#matches');
    this.inputs = classes.heads.map(head => {
      const list = element('datalist', {id: `names-${head}`});
      const input = element('input', {name: head, autocomplete: 'off', maxLength: 200,
        spellcheck: false, oninput: () => this.match()});
      input.setAttribute('list', list.id);
      this.heads.append(element('label', {}, head, input, list));
      return input;
    });
    dialog.querySelector('form').addEventListener('submit', () => this.submit());
    dialog.querySelector('#class-cancel').addEventListener('click', () => dialog.close());
  }

  open(title, classes = {}) {
    this.dialog.querySelector('h2').textContent = title;
    this.classes.heads.forEach((head, i) => {
      this.inputs[i].value = classes[head] || '';
      document.getElementById(`names-${head}`).replaceChildren(
        ...this.classes.names(head).map(value => element('option', {value})));
    });
    this.match();
    this.dialog.showModal();
    this.inputs[0].focus();
    this.inputs[0].select();
  }

  match() {
    const typed = this.inputs.map(input => input.value.trim().toLowerCase());
    const fits = [...this.classes.known].filter(([, {classes}]) =>
      this.classes.heads.every((head, i) => (classes[head] || '').toLowerCase().includes(typed[i])));
    this.matches.replaceChildren(...fits.slice(0, 24).map(([text, {classes}]) => element('li', {},
      element('button', {type: 'button', onclick: () => this.finish(classes)},
        swatch(this.colour(text, this.classes.idle(classes))), text))));
  }

  submit() {
    const classes = {};
    this.inputs.forEach((input, i) => {
      if (input.value.trim()) classes[this.classes.heads[i]] = input.value.trim();
    });
    if (Object.keys(classes).length) this.finish(classes);
  }

  finish(classes) {
    if (this.dialog.open) this.dialog.close();
    this.done(classes);
  }
}
