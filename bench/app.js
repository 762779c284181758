// A single-page app that has rendered by its load event: components, a virtual document and its patching, as in React.
// It starts with a shell, takes its data in, then sorts and selects, each time rendering everything anew.

const h = (tag, props, ...children) =>
  typeof tag === 'function' ? tag({...props, children}) : {tag, props: props ?? {}, children: children.flat()};

const SVG = 'http://www.w3.org/2000/svg';

function create(node, svg = false) {
  if (typeof node !== 'object') return document.createTextNode(node);
  svg ||= node.tag === 'svg';
  const element = svg ? document.createElementNS(SVG, node.tag) : document.createElement(node.tag);
  for (const [name, value] of Object.entries(node.props)) set(element, name, value);
  element.append(...node.children.map(child => create(child, svg)));
  return element;
}

function set(element, name, value) {
  if (name.startsWith('on')) element[name] = value;
  else if (value === undefined || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value);
}

function patch(element, before, after) {
  if (typeof before !== 'object' || typeof after !== 'object' || before.tag !== after.tag) {
    if (before !== after) element.replaceWith(create(after, element.namespaceURI === SVG));
    return;
  }
  for (const name of new Set([...Object.keys(before.props), ...Object.keys(after.props)]))
    if (before.props[name] !== after.props[name]) set(element, name, after.props[name]);
  const kept = Math.min(before.children.length, after.children.length);
  const nodes = [...element.childNodes];
  for (let i = 0; i < kept; i++) patch(nodes[i], before.children[i], after.children[i]);
  for (const node of nodes.slice(kept)) node.remove();
  element.append(...after.children.slice(kept).map(child => create(child, element.namespaceURI === SVG)));
}

// Components

const Sparkline = ({values}) => {
  const points = values.map((value, i) => `${i * 4},${40 - value * 0.4}`).join(' ');
  return h('svg', {width: 120, height: 40, viewBox: '0 0 120 40'},
    h('polyline', {points, fill: 'none', stroke: '#06c', 'stroke-width': 2}));
};
const Card = ({lamp, selected}) =>
  h('article', {class: selected ? 'card selected' : 'card', onclick: () => update({selected: lamp.id})},
    h('h2', null, lamp.name),
    h('p', null, `${lamp.place}, ${lamp.range} miles`),
    h(Sparkline, {values: lamp.hours}),
    h('footer', null, ...lamp.tags.map(tag => h('span', {class: 'tag'}, tag))));
const Row = ({lamp}) =>
  h('tr', null, ...[lamp.id, lamp.name, lamp.place, lamp.range, Math.max(...lamp.hours)].map(value => h('td', null, value)));
const Entry = ({lamp, selected}) => h('li', {class: selected ? 'selected' : undefined}, h('a', {href: `#${lamp.id}`}, lamp.name));
const App = ({lamps, sort, selected}) => {
  const sorted = [...lamps].sort((a, b) => (a[sort] < b[sort] ? -1 : a[sort] > b[sort] ? 1 : a.id - b.id));
  return h('div', {class: 'app'},
    h('header', null, h('h1', null, 'Lighthouse keeper'), h('p', null, `${lamps.length} lamps by ${sort}`)),
    h('nav', null, h('ul', null, ...sorted.map(lamp => h(Entry, {lamp, selected: lamp.id === selected})))),
    h('main', null,
      h('section', {class: 'cards'}, ...sorted.slice(0, 60).map(lamp => h(Card, {lamp, selected: lamp.id === selected}))),
      h('table', null, h('tbody', null, ...sorted.map(lamp => h(Row, {lamp}))))));
};

// State

const root = document.querySelector('#root');
let state = {lamps: [], sort: 'id', selected: null};
let shown = h(App, state);
root.append(create(shown));

function update(change) {
  state = {...state, ...change};
  const next = h(App, state);
  patch(root.firstChild, shown, next);
  shown = next;
}

update({lamps: JSON.parse(document.querySelector('#data').textContent)});
update({sort: 'range'});
update({sort: 'name', selected: 7});
