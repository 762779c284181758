"""Pictures of real pages out of packages, taken with the default request, for somebody to look at.

    python -m tests.gallery OUTDIR [GLOB]

Packages come from npm and PyPI into a cache folder, versions pinned here; small applications are built by esbuild with
the framework's own package. Everything is served on loopback; each picture is written as NAME.png beside `table.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType

import attrs
import trio

import cdp
import cleariflow
from cdp import visit
from tests import pages as foreign
from tests.site import Answer, Exchange, Site, open_site

CACHE = Path(os.environ.get("CLEARIFLOW_GALLERY_CACHE", "/tmp/cleariflow-gallery"))
MODULES = CACHE / "node_modules"
# Elements whose fonts are counted.
MAX_NODES = 600

PACKAGES: Mapping[str, str] = MappingProxyType(
    {
        "@angular/common": "21.2.26",
        "@angular/compiler": "21.2.26",
        "@angular/core": "21.2.26",
        "@angular/platform-browser": "21.2.26",
        "@esbuild/linux-x64": "0.28.2",
        "@stoplight/elements": "9.0.25",
        "chart.js": "4.6.1",
        "docsify": "5.0.0",
        "echarts": "6.1.0",
        "element-plus": "2.14.8",
        "ember-source": "7.3.0",
        "graphiql": "3.9.0",
        "graphql": "16.11.0",
        "impress.js": "1.1.0",
        "katex": "0.19.1",
        "leaflet": "1.9.4",
        "mermaid": "11.17.2",
        "monaco-editor": "0.57.0",
        "plotly.js-dist-min": "4.1.2",
        "react": "18.3.1",
        "react-dom": "18.3.1",
        "redoc": "2.5.4",
        "reveal.js": "6.0.2",
        "rxjs": "7.8.2",
        "scheduler": "0.23.2",
        "swagger-ui-dist": "5.35.0",
        "three": "0.187.0",
        "tslib": "2.8.1",
        "vue": "3.5.45",
    }
)


def document(body: str, head: str = "", style: str = "") -> str:
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width='
        f'device-width"><title>Gallery</title>{head}<style>{style}</style></head><body>{body}</body></html>'
    )


# -- Applications, built here ------------------------------------------------------------------------------------------

# Each fetches its data 150 ms late, as from a slow server, and shows it with a framework's own rendering.
APPLICATIONS: Mapping[str, str] = MappingProxyType(
    {
        "react.jsx": """
import React, {useEffect, useState, Suspense, lazy} from 'react';
import {createRoot} from 'react-dom/client';
const Late = lazy(async () => {
  await fetch('/data.json?late');
  return {default: () => <aside>A part that came late</aside>};
});
function App() {
  const [rows, setRows] = useState(null);
  useEffect(() => { fetch('/data.json').then(answer => answer.json()).then(data => setRows(data.rows)); }, []);
  if (rows === null) return <p className="spinner">Loading the React app ...</p>;
  return <main><h1>React {React.version}</h1><table><tbody>{rows.map(row => <tr key={row.name}><td>{row.name}</td>
    <td>{row.value}</td><td><meter max="100" value={row.value}/></td></tr>)}</tbody></table>
    <Suspense fallback={<p className="spinner">Waiting for the part ...</p>}><Late/></Suspense></main>;
}
createRoot(document.querySelector('#app')).render(<App/>);
""",
        "angular.js": """
import '@angular/compiler';
import {Component, VERSION, signal, provideZonelessChangeDetection} from '@angular/core';
import {bootstrapApplication} from '@angular/platform-browser';
class App {
  version = VERSION.full;
  rows = signal(null);
  constructor() { fetch('/data.json').then(answer => answer.json()).then(data => this.rows.set(data.rows)); }
}
const Root = Component({selector: '#app', template: `
  @if (rows(); as all) { <h1>Angular {{ version }}</h1>
    <table>@for (row of all; track row.name) { <tr><td>{{ row.name }}</td><td>{{ row.value }}</td>
      <td><meter max="100" [value]="row.value"></meter></td></tr> }</table>
  } @else { <p class="spinner">Loading the Angular app ...</p> }`})(App) ?? App;
bootstrapApplication(Root, {providers: [provideZonelessChangeDetection()]});
""",
        "ember.js": """
import Application from '@ember/application';
import Router from '@ember/routing/router';
import Route from '@ember/routing/route';
import {template} from '@ember/template-compiler/runtime';
import {VERSION} from '@ember/version';
class AppRouter extends Router { location = 'none'; }
AppRouter.map(function () {});
class IndexRoute extends Route {
  async model() { return {version: VERSION, ...await (await fetch('/data.json')).json()}; }
}
const modules = {
  'router:main': AppRouter,
  'route:index': IndexRoute,
  'template:application': template('<main>{{outlet}}</main>', {scope: () => ({})}),
  'template:loading': template('<p class="spinner">Loading the Ember app ...</p>', {scope: () => ({})}),
  'template:index': template(`<h1>Ember {{@model.version}}</h1><table>{{#each @model.rows as |row|}}<tr><td>{{row.name}}
    </td><td>{{row.value}}</td><td><meter max="100" value={{row.value}}></meter></td></tr>{{/each}}</table>`,
    {scope: () => ({})}),
};
class Resolver {
  static create() { return new Resolver(); }
  resolve(name) { return modules[name]; }
  normalize(name) { return name; }
}
Application.create({rootElement: '#app', Resolver, modulePrefix: 'gallery'});
""",
        "mermaid.js": """
import mermaid from 'mermaid/dist/mermaid.esm.min.mjs';
mermaid.initialize({startOnLoad: true, theme: 'default'});
""",
    }
)

ROWS = [
    {"name": name, "value": value}
    for name, value in (
        ("Lamp oil", 71),
        ("Fog signals", 34),
        ("Log book", 96),
        ("Wicks", 12),
        ("灯台", 55),
        ("Möwen", 48),
    )
]

APPLICATION_STYLE = """body{font:17px sans-serif;margin:40px;background:#f6f7fb}h1{color:#225}td{padding:8px 20px;
border-bottom:1px solid #ccd}meter{width:240px}.spinner{color:#b00;font-size:30px}aside{margin:20px 0;padding:14px;
background:#dff5e1}"""


# -- Pages -------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Exhibit:
    """One page of the gallery."""

    name: str
    packages: str
    html: str
    """The document; empty where `path` leads to one that is served anyway."""
    path: str = ""
    request: Mapping[str, object] = attrs.field(factory=dict)
    """Fields beside the defaults."""


def script(path: str) -> str:
    return f'<script src="/npm/{path}"></script>'


def style(path: str) -> str:
    return f'<link rel="stylesheet" href="/npm/{path}">'


ECHARTS = document(
    '<h1>Harbour dashboard</h1><div id="grid"></div>'
    + script("echarts/dist/echarts.min.js")
    + """<script>
const make = option => { const box = document.createElement('div'); grid.append(box); const chart = echarts.init(box);
  chart.showLoading(); fetch('/data.json').then(() => { chart.hideLoading(); chart.setOption(option); });
  addEventListener('resize', () => chart.resize()); };
const days = [...'1234567'].map(day => 'Day ' + day), values = [12, 32, 21, 54, 41, 63, 38];
make({title: {text: 'Bars'}, xAxis: {data: days}, yAxis: {}, series: [{type: 'bar', data: values}]});
make({title: {text: 'Lines'}, xAxis: {data: days}, yAxis: {}, series: [{type: 'line', smooth: true, areaStyle: {},
  data: values}, {type: 'line', data: values.map(v => 60 - v / 2)}]});
make({title: {text: 'Pie 饼图'}, series: [{type: 'pie', radius: ['30%', '60%'], data: values.map((value, i) =>
  ({value, name: days[i]}))}]});
make({title: {text: 'Gauge'}, series: [{type: 'gauge', data: [{value: 72, name: 'Tide'}]}]});
make({title: {text: 'Radar'}, radar: {indicator: days.map(name => ({name, max: 70}))}, series: [{type: 'radar',
  data: [{value: values}]}]});
make({title: {text: 'Heat'}, xAxis: {data: days}, yAxis: {data: days}, visualMap: {min: 0, max: 48, show: false},
  series: [{type: 'heatmap', data: days.flatMap((_, x) => days.map((_, y) => [x, y, x * y + 5]))}]});
</script>""",
    style="body{font-family:sans-serif;margin:16px}#grid{display:grid;grid-template-columns:repeat(3,1fr)}#grid div"
    "{height:330px}",
)

CHARTJS = document(
    '<h1>Chart.js</h1><div><canvas id="a"></canvas></div><div><canvas id="b"></canvas></div>'
    + script("chart.js/dist/chart.umd.min.js")
    + """<script>const data = {labels: ['Mon', 'Tue', 'Wed', 'Thu', 'Fri'], datasets: [
{label: 'Ships', data: [12, 19, 3, 5, 8], fill: true}, {label: 'Gulls', data: [7, 11, 15, 4, 9]}]};
new Chart(a, {type: 'bar', data}); new Chart(b, {type: 'line', data});</script>""",
    style="div{width:48%;float:left}",
)

PLOTLY = document(
    '<div id="p"></div><div id="q"></div><div id="r"></div>'
    + script("plotly.js-dist-min/plotly.min.js")
    + """<script>const x = [...Array(200).keys()];
Plotly.newPlot(p, [{x, y: x.map(i => Math.sin(i / 15) * i)}, {x, y: x.map(i => Math.cos(i / 20) * 90), type: 'bar'}],
  {title: {text: 'Lines and bars (SVG)'}, height: 380});
Plotly.newPlot(q, [{z: x.slice(0, 30).map(i => x.slice(0, 30).map(j => Math.sin(i / 4) * Math.cos(j / 5))),
  type: 'contour'}], {title: {text: 'Contour'}, height: 400, width: 600});
Plotly.newPlot(r, [{z: x.slice(0, 30).map(i => x.slice(0, 30).map(j => Math.sin(i / 4) * Math.cos(j / 5))),
  type: 'surface'}], {title: {text: 'Surface (WebGL)'}, height: 400, width: 600});</script>""",
    style="#q,#r{float:left}",
)

VUE = document(
    """<div id="app"><p class="spinner">Loading the Vue app ...</p></div>"""
    + script("vue/dist/vue.global.prod.js")
    + script("element-plus/dist/index.full.min.js")
    + """<script>
const App = {data: () => ({rows: null, tab: 'one', date: '2024-02-29', on: true, version: Vue.version}),
  async mounted() { this.rows = (await (await fetch('/data.json')).json()).rows; },
  template: `<el-card><template #header><h1>Vue {{ version }} with Element Plus</h1></template>
  <el-skeleton v-if="rows === null" :rows="6" animated></el-skeleton>
  <template v-else><el-table :data="rows" stripe border><el-table-column prop="name" label="Name" sortable />
  <el-table-column prop="value" label="Value" /><el-table-column label="Share" v-slot="{row}">
  <el-progress :percentage="row.value" /></el-table-column></el-table>
  <el-tabs v-model="tab"><el-tab-pane label="One" name="one">The first pane <el-tag>tag</el-tag></el-tab-pane>
  <el-tab-pane label="Two" name="two">second</el-tab-pane></el-tabs><el-date-picker v-model="date" />
  <el-switch v-model="on" /><el-rate :model-value="3.5" disabled /><el-button type="primary">Button</el-button>
  <el-alert title="Done" type="success" show-icon /></template></el-card>`};
Vue.createApp(App).use(ElementPlus).mount('#app');</script>""",
    head=style("element-plus/dist/index.css"),
    style="body{margin:30px;font-family:sans-serif}.spinner{color:#b00}",
)

GRAPHIQL = document(
    '<div id="graphiql"></div>'
    + script("react/umd/react.production.min.js")
    + script("react-dom/umd/react-dom.production.min.js")
    + script("graphiql/graphiql.min.js")
    + """<script>ReactDOM.createRoot(graphiql).render(React.createElement(GraphiQL, {
fetcher: async () => (await fetch('/data.json')).json(),
defaultQuery: '# Lamps of the coast\\n' +
  'query Lamps($first: Int = 5) {\\n  lamps(first: $first) { id name fog { depth } }\\n}'}));
</script>""",
    head=style("graphiql/graphiql.min.css"),
    style="html,body,#graphiql{height:100%;margin:0}",
)

MONACO = document(
    '<div id="editor"></div>'
    + script("monaco-editor/min/vs/loader.js")
    + """<script>require.config({paths: {vs: '/npm/monaco-editor/min/vs'}});
require(['vs/editor/editor.main'], () => monaco.editor.create(editor, {language: 'typescript', theme: 'vs-dark',
  value: Array.from({length: 40}, (_, i) => `// Line ${i}: 灯台 😀\\n` +
  `function lamp${i}(fog: number): string { return "lit" + fog * ${i}; }`).join('\\n')}));
</script>""",
    style="html,body,#editor{height:100%;margin:0}",
)

ELEMENTS = document(
    '<elements-api apiDescriptionUrl="/openapi.json" router="hash" layout="sidebar"></elements-api>'
    + script("@stoplight/elements/web-components.min.js"),
    head=style("@stoplight/elements/styles.min.css"),
    style="html,body{height:100%;margin:0}elements-api{display:block;height:100%}",
)

REDOC = document(
    '<redoc spec-url="/openapi.json"></redoc>' + script("redoc/bundles/redoc.standalone.js"), style="body{margin:0}"
)

DOCSIFY = document(
    "<div id=app>Please wait ...</div><script>window.$docsify = {name: 'Keeper', homepage: 'README.md',"
    " basePath: '/docs/', loadSidebar: true, subMaxLevel: 2}</script>" + script("docsify/dist/docsify.min.js"),
    head=style("docsify/dist/themes/core.min.css"),
)
DOCSIFY_TEXT = "# Lighthouse 灯台 ✨\n\n> A guide in *Markdown*\n\n" + "".join(
    f"## Chapter {i} 第{i}章\n\nThe lamp turns {i} times. 霧が深い夜、灯台守は鐘を鳴らす。 🚢 😀\n\n"
    "```python\nprint('fog')\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    for i in range(1, 9)
)

KATEX = document(
    "<h1>Formulas</h1>"
    + "".join(
        f'<p class="tex">{tex}</p>'
        for tex in (
            r"\int_{-\infty}^\infty e^{-x^2}\,dx = \sqrt{\pi}",
            r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}^{-1} = \frac{1}{ad-bc}"
            r"\begin{pmatrix} d & -b \\ -c & a \end{pmatrix}",
            r"\mathcal{L}\{f\}(s) = \int_0^\infty f(t)e^{-st}\,dt, \quad \mathfrak{g} \cong \mathbb{R}^n",
            r"\sum_{n=1}^{\infty} \frac{1}{n^2} = \frac{\pi^2}{6} \quad \text{(Euler)}",
        )
    )
    + script("katex/dist/katex.min.js")
    + "<script>for (const p of document.querySelectorAll('.tex')) "
    "katex.render(p.textContent, p, {displayMode: true})</script>",
    head=style("katex/dist/katex.min.css"),
)

MERMAID = document(
    '<h1>Diagrams</h1><pre class="mermaid">graph LR; A[Ship 船] --> B{Fog?}; B -- yes --> C[Horn]; B -- no --> D[Lamp];'
    ' C --> E((Harbour)); D --> E</pre><pre class="mermaid">sequenceDiagram\nKeeper->>Lamp: light\n'
    "Lamp-->>Ship: flash\n"
    'Ship->>Keeper: horn</pre><pre class="mermaid">gantt\ndateFormat YYYY-MM-DD\n'
    "section Watch\nFirst :a, 2024-01-01, 3d\n"
    'Second :after a, 4d</pre><script type="module" src="/built/mermaid.js"></script>'
)

THREE = document(
    """<script type="importmap">{"imports": {"three": "/npm/three/build/three.module.js"}}</script>
<script type="module">import * as THREE from 'three';
const scene = new THREE.Scene(), camera = new THREE.PerspectiveCamera(60, innerWidth / innerHeight, .1, 100);
const renderer = new THREE.WebGLRenderer({antialias: true}); renderer.setSize(innerWidth, innerHeight);
document.body.append(renderer.domElement); scene.background = new THREE.Color('#123');
const light = new THREE.DirectionalLight('#fff', 3); light.position.set(2, 3, 4);
scene.add(light, new THREE.AmbientLight('#446'));
const knot = new THREE.Mesh(new THREE.TorusKnotGeometry(1.2, .4, 128, 24),
  new THREE.MeshStandardMaterial({color: '#e80'}));
scene.add(knot); camera.position.z = 4; let frames = 0;
renderer.setAnimationLoop(() => { knot.rotation.y = frames++ / 60; renderer.render(scene, camera); });</script>""",
    style="body{margin:0;overflow:hidden}",
)

LEAFLET = document(
    '<div id="map"></div>'
    + script("leaflet/dist/leaflet.js")
    + """<script>const map = L.map('map').setView([47.2, 8.6], 9);
L.tileLayer('/tile/{z}/{x}/{y}.svg', {attribution: 'made here'}).addTo(map);
L.marker([47.37, 8.54]).addTo(map).bindPopup('Zürich 🚢').openPopup();
L.circle([47.05, 8.31], {radius: 9000}).addTo(map);
L.polygon([[47.5, 8.2], [47.6, 8.9], [47.3, 9.1]], {color: 'purple'}).addTo(map);
L.control.scale().addTo(map);</script>""",
    head=style("leaflet/dist/leaflet.css"),
    style="html,body,#map{height:100%;margin:0}",
)

_PASSAGES = (
    (
        "ja",
        "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所でニャーニャー泣いていた事だけは記憶している。",
    ),
    ("zh-Hans", "此开卷第一回也。作者自云：因曾历过一番梦幻之后，故将真事隐去，而借“通灵”之说，撰此《石头记》一书也。"),
    ("zh-Hant", "話說天下大勢，分久必合，合久必分：周末七國分爭，并入於秦；及秦滅之後，楚、漢分爭，又并入於漢。"),
    (
        "ko",
        "나라의 말이 중국과 달라 문자와 서로 통하지 아니하므로, 어리석은 백성이 뜻을 펴지 못하니라.",
    ),
    ("ru", "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему."),
    ("el", "Μῆνιν ἄειδε, θεά, Πηληϊάδεω Ἀχιλῆος οὐλομένην, ἣ μυρί’ Ἀχαιοῖς ἄλγε’ ἔθηκε."),
    ("ar", "كان يا ما كان في قديم الزمان وسالف العصر والأوان ملك من ملوك ساسان بجزائر الهند والصين."),
    ("he", "בראשית ברא אלהים את השמים ואת הארץ והארץ היתה תהו ובהו וחשך על פני תהום."),
    ("hi", "धर्मक्षेत्रे कुरुक्षेत्रे समवेता युयुत्सवः। मामकाः पाण्डवाश्चैव किमकुर्वत सञ्जय॥"),
    ("th", "กาลครั้งหนึ่งนานมาแล้ว มีกระต่ายกับเต่าอาศัยอยู่ในป่าแห่งหนึ่ง"),
    ("en", "Call me Ishmael. Some years ago — never mind how long precisely — having little or no money in my purse …"),
)
ARTICLE = document(
    "<nav>Contents ①②③</nav><h1>A long article 长文 長文 긴 글 📚</h1><p>😀 👩‍👩‍👧‍👦 🇨🇭 🏳️‍🌈 👍🏽 ❤️ ☕ ✈️ 🦀 1️⃣</p>"
    + "".join(
        f'<h2>{i + 1}. {language} 🌍</h2><p lang="{language}" dir="auto">{text * 6}</p>'
        + (
            f'<figure><img loading="lazy" src="/picture.svg?{i}" width="640" height="220"><figcaption>Lazy {i}'
            "</figcaption></figure>"
            if i % 3 == 0
            else ""
        )
        for i, (language, text) in enumerate(_PASSAGES * 4)
    ),
    style="""body{font:18px/1.7 serif;max-width:46em;margin:0 auto;padding:70px 20px}
nav{position:fixed;top:0;left:0;right:0;
background:#234;color:#fff;padding:10px 30px}h2{font-family:sans-serif;border-bottom:1px solid #ccc}""",
)

IMPRESS = document(
    """<div id="impress"><div class="step" data-x="0" data-y="0"><h1>impress.js</h1><p>First slide ⚓</p></div>
<div class="step" data-x="1000" data-y="500" data-rotate="30" data-scale="2"><h1>Second</h1></div></div>"""
    + script("impress.js/js/impress.js")
    + "<script>impress().init()</script>",
    style="body{font:60px sans-serif;background:radial-gradient(#dde,#99b)}.step{width:900px;padding:40px;opacity:.2;"
    "transition:opacity 1s}.active{opacity:1}",
)

FULL = MappingProxyType({"full_page": True})


def exhibits() -> list[Exhibit]:
    """All pages, in the order of the table."""
    built = '<div id="app"></div><script type="module" src="/built/{}.js"></script>'
    return [
        Exhibit("swagger-ui", "swagger-ui-dist (React)", "", "/npm/swagger-ui-dist/index.html"),
        Exhibit("elements", "@stoplight/elements (React)", ELEMENTS),
        Exhibit("redoc", "redoc (React)", REDOC, request=FULL),
        Exhibit("graphiql", "graphiql, react 18", GRAPHIQL),
        Exhibit("react", "react 18, built", document(built.format("react"), style=APPLICATION_STYLE)),
        Exhibit("vue", "vue 3, element-plus", VUE),
        Exhibit("angular", "@angular/core 21, built", document(built.format("angular"), style=APPLICATION_STYLE)),
        Exhibit("ember", "ember-source 7, built", document(built.format("ember"), style=APPLICATION_STYLE)),
        Exhibit("docsify", "docsify", DOCSIFY, request=FULL),
        Exhibit("reveal", "reveal.js demo", "", "/npm/reveal.js/demo.html"),
        Exhibit("impress", "impress.js", IMPRESS),
        Exhibit("echarts", "echarts (canvas)", ECHARTS),
        Exhibit("chartjs", "chart.js (canvas, animated)", CHARTJS),
        Exhibit("plotly", "plotly.js-dist-min (SVG, WebGL)", PLOTLY),
        Exhibit("monaco", "monaco-editor", MONACO),
        Exhibit("mermaid", "mermaid, built", MERMAID),
        Exhibit("katex", "katex (20 web fonts)", KATEX),
        Exhibit("three", "three (WebGL, never at rest)", THREE),
        Exhibit("leaflet", "leaflet (tiles)", LEAFLET),
        Exhibit("article", "none: long text, CJK, emoji, lazy images", ARTICLE, request=FULL),
        Exhibit(
            "article-scrolled", "the same with scroll_page", ARTICLE, request={"full_page": True, "scroll_page": True}
        ),
        Exhibit(
            "article-phone",
            "the same as a phone",
            ARTICLE,
            request={
                "viewport": {"width": 390, "height": 844, "device_scale_factor": 2, "mobile": True, "touch": True}
            },
        ),
        Exhibit("manual", "roundup (Sphinx)", "", "/manual/user_guide.html", request=FULL),
        Exhibit("manual-view", "roundup (Sphinx)", "", "/manual/reference.html"),
        Exhibit("swagger-flask", "flask-swagger-ui (React)", "", "/swagger/"),
        Exhibit(
            "react-dark",
            "react 18, dark, scale 2",
            document(built.format("react"), style="html{color-scheme:dark}"),
            request={"color_scheme": "dark", "viewport": {"width": 800, "height": 600, "device_scale_factor": 2}},
        ),
    ]


# -- Fetching and building ---------------------------------------------------------------------------------------------


# What Ember's own modules import from one another.
EMBER_PARTS = ("backburner.js", "dag-map", "route-recognizer", "router_js", "rsvp")


def fetch() -> None:
    """Bring the packages into the cache, each unpacked under its name; by npm, without their dependencies."""
    missing = [name for name in PACKAGES if not (MODULES / name / f".{PACKAGES[name]}").is_file()]
    if not missing:
        return
    downloads = CACHE / "tarballs"
    downloads.mkdir(parents=True, exist_ok=True)
    names = [f"{name}@{PACKAGES[name]}" for name in missing]
    command = ["npm", "pack", "--json", "--loglevel=error", f"--pack-destination={downloads}", *names]
    said = subprocess.run(command, cwd=downloads, check=True, capture_output=True, timeout=600).stdout
    for packed in json.loads(said):
        target = MODULES / packed["name"]
        target.mkdir(parents=True, exist_ok=True)
        file = downloads / packed["filename"].replace("@", "").replace("/", "-")
        with tarfile.open(file) as archive:
            for member in archive.getmembers():
                # All of a package lies in one folder, mostly `package`.
                member.name = member.name.partition("/")[2]
                if member.name:
                    archive.extract(member, target, filter="data")
        (target / f".{packed['version']}").touch()
        file.unlink()


def build() -> Path:
    """The folder with the applications, built with esbuild where they are not there yet."""
    sources, made = CACHE / "sources", CACHE / "built"
    sources.mkdir(exist_ok=True)
    ember = MODULES / "ember-source/dist/prod/packages"
    for name, text in APPLICATIONS.items():
        source, target = sources / name, made / f"{Path(name).stem}.js"
        if target.is_file() and source.is_file() and source.read_text() == text:
            continue
        source.write_text(text)
        command = [
            str(MODULES / "@esbuild/linux-x64/bin/esbuild"), str(source), "--bundle", "--format=esm", "--minify",
            "--jsx=transform", "--define:process.env.NODE_ENV='production'", "--log-level=error", f"--outfile={target}",
            f"--alias:@ember={ember / '@ember'}", f"--alias:@glimmer={ember / '@glimmer'}",
            f"--alias:@simple-dom={ember / '@simple-dom'}",
            *(f"--alias:{one}={ember / one}" for one in EMBER_PARTS),
        ]  # fmt: skip
        subprocess.run(command, cwd=CACHE, check=True, timeout=120, env=os.environ | {"NODE_PATH": str(MODULES)})
    return made


async def slow_data(exchange: Exchange) -> Answer:
    """What the applications fetch, as late as from a busy server."""
    await exchange.hold(0.15)
    return Answer(json.dumps({"rows": ROWS, "data": {"lamps": []}}).encode(), "application/json")


def serve(site: Site, built: Path) -> None:
    """Everything that the exhibits ask for."""
    foreign.mount(site)
    site.add_folder("/npm/", MODULES)
    site.add_folder("/built/", built)
    api = json.dumps(foreign.API_DESCRIPTION)
    site.add("/openapi.json", api, "application/json")
    initializer = (MODULES / "swagger-ui-dist/swagger-initializer.js").read_text()
    site.add(
        "/npm/swagger-ui-dist/swagger-initializer.js",
        initializer.replace("https://petstore.swagger.io/v2/swagger.json", "/openapi.json").replace(
            "dom_id:", "validatorUrl: null, dom_id:"
        ),
        "text/javascript",
    )
    site.add("/docs/README.md", DOCSIFY_TEXT, "text/markdown; charset=utf-8")
    site.add("/docs/_sidebar.md", "* [Home](/)\n* [Guide](guide)\n", "text/markdown; charset=utf-8")
    picture = (
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 64 22'><rect width='64' height='22' fill='#8bd'/>"
        "<circle cx='32' cy='11' r='8' fill='#fd4'/></svg>"
    )
    site.add("/picture.svg", picture, "image/svg+xml")

    for zoom, x, y in ((9, x, y) for x in range(262, 275) for y in range(174, 185)):
        tile = f"<rect width='256' height='256' fill='hsl({(x * 37 + y * 61) % 360},40%,85%)' stroke='gray'/>"
        label = f"<text x='90' y='130' font-size='24'>{x}/{y}</text>"
        drawn = f"<svg xmlns='http://www.w3.org/2000/svg' width='256' height='256'>{tile}{label}</svg>"
        site.add(f"/tile/{zoom}/{x}/{y}.svg", drawn, "image/svg+xml")
    site.add_route("/data.json", slow_data)
    for exhibit in exhibits():
        if exhibit.html:
            site.add(f"/{exhibit.name}", exhibit.html)


# -- Taking ------------------------------------------------------------------------------------------------------------


async def fonts_of(page: cdp.Page) -> str:
    """The fonts that the page's letters were drawn with, the most used first."""
    await page.session.send_all(("DOM.enable", {}), ("CSS.enable", {}))
    root = (await page.session.send("DOM.getDocument", depth=1))["root"]["nodeId"]
    found = await page.session.send("DOM.querySelectorAll", nodeId=root, selector="body, body *")
    counts: Counter[str] = Counter()
    for node in found["nodeIds"][:MAX_NODES]:
        try:
            used = await page.session.send("CSS.getPlatformFontsForNode", nodeId=node)
        except cdp.errors.CommandError:
            # The page replaced the element meanwhile.
            continue
        for font in used["fonts"]:
            counts[font["familyName"] + (" (web)" if font["isCustomFont"] else "")] += int(font["glyphCount"])
    return ", ".join(name for name, _ in counts.most_common())


async def take(folder: Path, only: str) -> list[str]:
    """Take the pictures and give the lines of the table."""
    await trio.to_thread.run_sync(fetch)
    built = await trio.to_thread.run_sync(build)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["| page | packages | request | picture px | ms | where | requests | fonts | warnings |", "|---" * 9 + "|"]
    config = cleariflow.Config(allow_network=("127.0.0.0/8",))
    fonts = ""

    @asynccontextmanager
    async def open_page() -> AsyncIterator[cdp.Page]:
        nonlocal fonts
        async with browser.open_page() as page:
            yield page
            fonts = await fonts_of(page)

    async with open_site() as site, cdp.open_browser(policy=config.policy) as browser:
        serve(site, built)
        for exhibit in exhibits():
            if not fnmatchcase(exhibit.name, only):
                continue
            given = {"url": site.url(exhibit.path or f"/{exhibit.name}"), "format": "png", **exhibit.request}
            parsed = cleariflow.parse_request("screenshot", given, config)
            asked = len(site.requests)
            progress = visit.Progress()
            try:
                made = await cleariflow.attempt(
                    open_page, parsed, policy=config.policy, max_pixels=config.max_pixels, progress=progress
                )
            except cleariflow.JobFailed as failure:
                size, spent_ms, warnings = "none", progress.elapsed_ms, f"FAILED: {failure}"
            else:
                (folder / f"{exhibit.name}.png").write_bytes(made.main.data)
                size, spent_ms = f"{made.meta['width']}x{made.meta['height']}", made.meta["elapsed_ms"]
                warnings = "; ".join(made.meta["warnings"])
            cells = (
                exhibit.name,
                exhibit.packages,
                " ".join(exhibit.request),
                size,
                spent_ms,
                ", ".join(f"{phase} {ms}" for phase, ms in progress.timings.items() if ms > 4),
                len(site.requests) - asked,
                fonts,
                warnings,
            )
            lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
            print(lines[-1], flush=True)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="take pictures of real pages")
    parser.add_argument("folder", type=Path, metavar="OUTDIR")
    parser.add_argument("only", nargs="?", default="*", metavar="GLOB", help="names of pages")
    arguments = parser.parse_args()
    lines = trio.run(take, arguments.folder, arguments.only)
    (arguments.folder / "table.md").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
