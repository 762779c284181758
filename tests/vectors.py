"""Every way in which a page, or a request for one, makes a browser open a connection.

Each vector is tried against each target. In the templates `$url`, `$tls`, `$ws` and `$wss` lead to the target, with the
vector's name in the path; `$raw` is host and port of a server that only counts, for what sends no path; `$site` is the
page's own origin, `$site_tls` the same with TLS; `$origin` is the target's, `$closed` a port of it where nobody
listens; `$quoted` and `$requoted` are `$url` for a query, once and twice.

Contents: markup - scripts - requests - our own ports - what Chromium never sends - filling in.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any
from urllib.parse import quote

import attrs

from tests.site import page

# ---- Markup ----------------------------------------------------------------------------------------------------------


def _srcdoc(markup: str, attributes: str = "") -> str:
    return f'<iframe {attributes} srcdoc="{escape(markup)}"></iframe>'


def _answer(body: str = "x", *headers: str, kind: str = "text/html") -> str:
    """The URL of an answer with this body and these headers; placeholders stay readable for the filling."""
    fields = {"body": body, "type": kind, "headers": json.dumps(headers)}
    return "$site/answer?" + "&".join(f"{name}={quote(text, safe='$')}" for name, text in fields.items())


def _framed(body: str = "x", *headers: str, kind: str = "text/html") -> str:
    return f'<iframe src="{escape(_answer(body, *headers, kind=kind))}"></iframe>'


_SVG = '<svg xmlns="http://www.w3.org/2000/svg">{}</svg>'
_STYLESHEET = '<?xml version="1.0"?><?xml-stylesheet type="{}" href="$url"?><x>x</x>'
_PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n$url\n#EXT-X-ENDLIST\n"
_REPORTED = '<img src="/none">'

MARKUP = {
    "img": '<img src="$url">',
    "img-srcset": '<img srcset="$url 1x">',
    "img-lazy": '<img loading="lazy" src="$url">',
    "picture": '<picture><source srcset="$url"><img></picture>',
    "svg-image": '<svg><image width="9" height="9" href="$url"/></svg>',
    "svg-feimage": (
        '<svg><filter id="f$n"><feImage href="$url"/></filter><rect filter="url(#f$n)" width="9" height="9"/></svg>'
    ),
    "svg-use": '<svg><use href="$url#x"/></svg>',
    "svg-document": _framed(_SVG.format('<image width="9" height="9" href="$url"/>'), kind="image/svg+xml"),
    "svg-script": _framed(_SVG.format('<script href="$url"/>'), kind="image/svg+xml"),
    "css-background": '<p style="background:url($url)">x</p>',
    "css-image-set": "<p style=\"background:image-set('$url' 1x)\">x</p>",
    "css-border": '<p style="border:9px solid;border-image:url($url) 1">x</p>',
    "css-list": '<ul style="list-style:url($url)"><li>x</ul>',
    "css-cursor": '<p style="cursor:url($url),auto">x</p>',
    "css-content": "<style>.c$n::before{content:url($url)}</style><p class=c$n>x</p>",
    "css-mask": '<p style="mask-image:url($url)">x</p>',
    "css-shape": '<p style="float:left;shape-outside:url($url)">x</p>',
    "css-filter": '<p style="filter:url($url#f)">x</p>',
    "css-import": "<style>@import url($url);</style>",
    "css-font": "<style>@font-face{font-family:f$n;src:url($url)}</style><p style='font-family:f$n'>x</p>",
    "stylesheet": '<link rel="stylesheet" href="$url">',
    "icon": '<link rel="icon" href="$url">',
    "touch-icon": '<link rel="apple-touch-icon" href="$url">',
    "manifest": '<link rel="manifest" href="$url">',
    "search-description": '<link rel="search" type="application/opensearchdescription+xml" href="$url">',
    "preload-image": '<link rel="preload" as="image" href="$url">',
    "preload-script": '<link rel="preload" as="script" href="$url">',
    "preload-font": '<link rel="preload" as="font" crossorigin href="$url">',
    "preload-fetch": '<link rel="preload" as="fetch" crossorigin href="$url">',
    "modulepreload": '<link rel="modulepreload" href="$url">',
    "prefetch": '<link rel="prefetch" href="$url">',
    "prerender-link": '<link rel="prerender" href="$url">',
    "preconnect": '<link rel="preconnect" href="http://$raw">',
    "dictionary": '<link rel="compression-dictionary" href="$url">',
    "script": '<script src="$url"></script>',
    "script-async": '<script async src="$url"></script>',
    "script-module": '<script type="module" src="$url"></script>',
    "source-map": "<script>0\n//# sourceMappingURL=$url\n</script>",
    "source-map-header": f'<script src="{escape(_answer("0", "SourceMap: $url", kind="text/javascript"))}"></script>',
    "video": '<video src="$url"></video>',
    "video-poster": '<video poster="$url"></video>',
    "video-source": '<video><source src="$url"></video>',
    "video-playlist": f'<video src="{escape(_answer(_PLAYLIST, kind="application/vnd.apple.mpegurl"))}"></video>',
    "audio": '<audio preload="auto" src="$url"></audio>',
    "track": '<video crossorigin src="$site/none"><track default kind="subtitles" src="$url"></video>',
    "iframe": '<iframe src="$url"></iframe>',
    "iframe-sandbox": '<iframe sandbox src="$url"></iframe>',
    "iframe-data": '<iframe src="data:text/html,<img src=$url>"></iframe>',
    "iframe-redirect": '<iframe src="$site/redirect/302?to=$quoted"></iframe>',
    "srcdoc": _srcdoc('<img src="$url">'),
    "srcdoc-sandbox": _srcdoc('<script>fetch("$url")</script>', 'sandbox="allow-scripts"'),
    "base": _srcdoc('<base href="$url/"><img src="x">'),
    "frameset": _srcdoc('<frameset><frame src="$url"></frameset>'),
    "body-background": _srcdoc('<body background="$url">'),
    "meta-refresh-frame": _srcdoc('<meta http-equiv="refresh" content="0;url=$url">'),
    "download": _srcdoc(
        '<a download href="$site/redirect/302?to=$quoted">x</a><script>document.links[0].click()</script>'
    ),
    "object": '<object data="$url"></object>',
    "embed": '<embed src="$url">',
    "input-image": '<input type="image" src="$url">',
    "table-background": '<table background="$url"><tr><td>x</table>',
    "attribution-source": '<img attributionsrc="$tls">',
    "xml-stylesheet": _framed(_STYLESHEET.format("text/css"), kind="text/xml"),
    "xslt": _framed(_STYLESHEET.format("text/xsl"), kind="text/xml"),
    "xml-entity": _framed('<!DOCTYPE x [<!ENTITY e SYSTEM "$url">]><x>&e;</x>', kind="text/xml"),
    "refresh-header-frame": _framed("x", "Refresh: 0;url=$url"),
    "preload-header": _framed("x", "Link: <$url>; rel=preload; as=image"),
    "stylesheet-header": _framed("x", "Link: <$url>; rel=stylesheet"),
    "preconnect-header": _framed("x", "Link: <http://$raw>; rel=preconnect"),
    "csp-report-uri": _framed(_REPORTED, "Content-Security-Policy: img-src 'none'; report-uri $url"),
    "csp-report-to": _framed(
        _REPORTED, "Content-Security-Policy: img-src 'none'; report-to e", 'Reporting-Endpoints: e="$tls"'
    ),
    "content-location": _framed("x", "Content-Location: $url", "Location: $url"),
    **{f"redirect-{code}": f'<img src="$site/redirect/{code}?to=$quoted">' for code in (301, 302, 303, 307, 308)},
    "redirect-twice": '<img src="$site/redirect/302?to=$site/redirect/307%3Fto=$requoted">',
}

# ---- Scripts ---------------------------------------------------------------------------------------------------------

# Bodies of async functions; what they call is below.
SCRIPTS = {
    "fetch": "await fetch('$url')",
    "fetch-no-cors": "await fetch('$url', {mode: 'no-cors'})",
    "fetch-preflight": "await fetch('$url', {method: 'PUT', headers: {'x-own': '1'}, body: 'x'})",
    "fetch-keepalive": "await fetch('$url', {keepalive: true, mode: 'no-cors'})",
    "fetch-redirect": "await fetch('$site/redirect/307?to=$quoted', {method: 'POST', body: 'x', mode: 'no-cors'})",
    "fetch-later": "fetchLater('$url', {activateAfter: 0})",
    "fetch-address-space": "await fetch('$url', {targetAddressSpace: 'local'})",
    "xhr": "const x = new XMLHttpRequest(); x.open('GET', '$url'); x.send(); await over(x, 'loadend')",
    "xhr-sync": "const x = new XMLHttpRequest(); x.open('GET', '$url', false); x.send()",
    "event-source": "const e = new EventSource('$url'); await over(e, 'error'); e.close()",
    "beacon": "navigator.sendBeacon('$url', 'x')",
    "beacon-unload": "unload(`navigator.sendBeacon('$url')`)",
    "keepalive-unload": "unload(`fetch('$url', {keepalive: true, mode: 'no-cors'})`)",
    "beacon-at-the-end": "addEventListener('pagehide', () => navigator.sendBeacon('$url'))",
    "ping": "link('#', {ping: '$url'}).click()",
    "image": "const i = new Image(); i.src = '$url'; await i.decode()",
    "font-face": "await new FontFace('x', 'url($url)').load()",
    "import": "await import('$url')",
    "import-json": "await import('$url', {with: {type: 'json'}})",
    "import-map": (
        "add('script', {type: 'importmap', text: JSON.stringify({imports: {m$n: '$url'}})}); await import('m$n')"
    ),
    "document-write": ("const d = frame().contentDocument; d.write('<script src=\"$url\"><\\/script>'); d.close()"),
    "cache": "await (await caches.open('x')).add(new Request('$url', {mode: 'no-cors'}))",
    "websocket": "await over(new WebSocket('$ws'), 'close')",
    "websocket-tls": "await over(new WebSocket('$wss'), 'close')",
    "websocket-frame": "await over(new (frame().contentWindow).WebSocket('$ws'), 'close')",
    "webtransport": "await new WebTransport('https://$raw/').ready",
    "webrtc-stun-udp": "await call([{urls: 'stun:$raw'}])",
    "webrtc-turn-udp": "await call([turn('turn:$raw?transport=udp')])",
    "webrtc-turn-tcp": "await call([turn('turn:$raw?transport=tcp')])",
    "webrtc-turn-tls": "await call([turn('turns:$raw?transport=tcp')])",
    "webrtc-peer-udp": "await call([], 'candidate:1 1 udp 2122260223 $spaced typ host')",
    "webrtc-peer-tcp": "await call([], 'candidate:1 1 tcp 2122260223 $spaced typ host tcptype passive')",
    "worker-script": "new Worker('$url')",
    "worker-redirect": "await over(new Worker('$site/redirect/302?to=$quoted'), 'error')",
    "worker-import": "await worked(new Worker(blob(`importScripts('$url')`)))",
    "worker-module": "await worked(new Worker(blob(`import '$url'`), {type: 'module'}))",
    "worker-fetch": "await worked(new Worker(blob(`fetch('$url', {mode: 'no-cors'})`)))",
    "worker-xhr": "await worked(new Worker(blob(`x = new XMLHttpRequest(); x.open('GET', '$url', false); x.send()`)))",
    "worker-websocket": "await worked(new Worker(blob(`new WebSocket('$ws')`)))",
    "worker-nested": "const b = blob(`fetch('$url', {mode: 'no-cors'})`); new Worker(blob(`new Worker('${b}')`))",
    "shared-worker-script": "new SharedWorker('$url')",
    "shared-worker-import": "new SharedWorker(blob(`importScripts('$url')`))",
    "shared-worker-fetch": "new SharedWorker(blob(`fetch('$url', {mode: 'no-cors'})`))",
    "shared-worker-websocket": "new SharedWorker(blob(`new WebSocket('$ws')`))",
    "service-worker-script": "await navigator.serviceWorker.register('$url')",
    "service-worker-import": "await served(`try { importScripts('$url') } catch {}`)",
    "service-worker-fetch": "await served(`oninstall = () => { fetch('$url', {mode: 'no-cors'}) }`)",
    "service-worker-answer": "await served(`onfetch = e => e.respondWith(fetch('$url', {mode: 'no-cors'}))`, true)",
    "service-worker-redirect": "await served(`onfetch = e => e.respondWith(Response.redirect('$url'))`, true)",
    "background-fetch": "await (await served('')).backgroundFetch.fetch('x$n', '$url')",
    "audio-worklet": "await new OfflineAudioContext(1, 1, 44100).audioWorklet.addModule('$url')",
    "paint-worklet": "await CSS.paintWorklet.addModule('$url')",
    "form-get": "form('$url', 'get')",
    "form-post": "form('$url', 'post')",
    "form-redirect": "form('$site/redirect/307?to=$quoted', 'post')",
    "link-click": "link('$url', {target: frame().name}).click()",
    "link-blank": "link('$url', {target: '_blank'}).click()",
    "frame-location": "frame().contentWindow.location = '$url'",
    "frame-open": "open('$url', frame().name)",
    "popup": "open('$url')",
    "popup-noopener": "open('$url', '_blank', 'noopener')",
    "popup-location": "open('about:blank').location = '$url'",
    "speculation-prefetch": "rules('prefetch', '$url')",
    "speculation-prerender": "rules('prerender', '$url')",
    "speculation-redirect": "rules('prerender', '$site/redirect/302?to=$quoted')",
    "prerendered-image": "rules('prerender', '$site/answer?body=<img src=$quoted>')",
    "payment": (
        "const total = {label: 'x', amount: {currency: 'EUR', value: '1'}};"
        "await new PaymentRequest([{supportedMethods: '$tls'}], {total}).canMakePayment()"
    ),
    "federated": "await navigator.credentials.get({identity: {providers: [{configURL: '$tls', clientId: 'x'}]}})",
    "passkey": (
        "const rpId = new URL('$tls').hostname;"
        "await navigator.credentials.get({publicKey: {challenge: new Uint8Array(9), rpId, timeout: 500}})"
    ),
    "media-session": "navigator.mediaSession.metadata = new MediaMetadata({artwork: [{src: '$url'}]})",
    "presentation": "await new PresentationRequest(['$url']).getAvailability()",
    "alt-svc": """await asked(['Alt-Svc: h3="$raw"; ma=60, h2="$raw"; ma=60'])""",
    "error-logging": (
        "const to = {group: 'g', max_age: 60, endpoints: [{url: '$tls'}]};"
        "const nel = {report_to: 'g', max_age: 60, success_fraction: 1};"
        "await asked([`Report-To: ${JSON.stringify(to)}`, `NEL: ${JSON.stringify(nel)}`])"
    ),
    "certificate-issuer": "await fetch('$site_chain/none', {mode: 'no-cors'})",
}

_HELPERS = """
const pause = ms => new Promise(done => setTimeout(done, ms));
const over = (it, event) => new Promise(done => it.addEventListener(event, done, {once: true}));
const worked = worker => Promise.race([over(worker, 'message'), over(worker, 'error')]);
const blob = text => URL.createObjectURL(new Blob([text], {type: 'text/javascript'}));
const add = (tag, fields) => document.body.appendChild(Object.assign(document.createElement(tag), fields));
let count = 0;
const frame = () => add('iframe', {name: 'own' + count++});
const link = (href, fields) => add('a', {href, text: 'x', ...fields});
const form = (action, method) => {
  const it = add('form', {action, method, target: frame().name});
  it.innerHTML = '<input name=x value=y>';
  it.submit();
};
const unload = code => {
  const it = frame();
  it.contentWindow.eval(`addEventListener('pagehide', () => ${code})`);
  it.remove();
};
const rules = (kind, url) => {
  const list = {[kind]: [{source: 'list', urls: [url], eagerness: 'immediate'}]};
  add('script', {type: 'speculationrules', text: JSON.stringify(list)});
};
const turn = urls => ({urls, username: 'a', credential: 'b'});
const calls = [];
const call = async (iceServers, candidate) => {
  const one = new RTCPeerConnection({iceServers}), two = new RTCPeerConnection();
  calls.push(one, two);
  one.createDataChannel('x');
  await one.setLocalDescription();
  if (!candidate) return;
  await two.setRemoteDescription(one.localDescription);
  await two.setLocalDescription();
  await one.setRemoteDescription(two.localDescription);
  await one.addIceCandidate({candidate, sdpMid: '0'});
};
const asked = async headers => {
  const url = SITE_TLS + '/answer?headers=' + encodeURIComponent(JSON.stringify(headers));
  for (let i = 0; i < 3; i++) await fetch(url, {mode: 'no-cors', cache: 'reload'});
};
const served = async (text, visit) => {
  const scope = '/scope/' + count++ + '/';
  const script = '/answer?type=text/javascript&body=' + encodeURIComponent(text)
      + '&headers=' + encodeURIComponent('["Service-Worker-Allowed: /"]');
  const registration = await navigator.serviceWorker.register(script, {scope});
  const worker = registration.installing || registration.waiting || registration.active;
  while (worker.state !== 'activated' && worker.state !== 'redundant') await over(worker, 'statechange');
  // Now and then, under load, a first visit gets no redirect from the worker.
  for (let i = 0; visit && i < 3; i++, await pause(300)) add('iframe', {src: scope + 'x' + i});
  return registration;
};
"""

# ---- Requests --------------------------------------------------------------------------------------------------------

_SCRIPTED = "<script>onload = () => {{ {} }}</script>"

# The whole page goes there, or the request itself does; each is a job of its own.
REQUESTS: dict[str, dict[str, Any]] = {
    "first-url": {"url": "$url"},
    "first-url-tls": {"url": "$tls"},
    "first-redirect": {"url": "$site/redirect/302?to=$quoted"},
    "first-redirect-twice": {"url": "$site/redirect/301?to=$site/redirect/308%3Fto=$requoted"},
    "meta-refresh": {"url": _answer('<meta http-equiv="refresh" content="0;url=$url">')},
    "refresh-header": {"url": _answer("x", "Refresh: 0;url=$url")},
    "location": {"url": _answer(_SCRIPTED.format("location = '$url'"))},
    "location-at-once": {"url": _answer("<script>location.replace('$url')</script>")},
    "form": {"url": _answer('<form action="$url" method="post"></form><script>document.forms[0].submit()</script>')},
    "click": {"url": _answer('<a href="$url">x</a>'), "actions": [{"type": "click", "selector": "a"}]},
    "goto": {"url": "$site/ok", "actions": [{"type": "goto", "url": "$url"}]},
    "goto-redirect": {"url": "$site/ok", "actions": [{"type": "goto", "url": "$site/redirect/302?to=$quoted"}]},
    "script-action": {"url": "$site/ok", "actions": [{"type": "evaluate", "script": "location = '$url'"}]},
    "injected-css": {"url": "$site/ok", "css": "body { background: url($url) }"},
    "injected-js": {"url": "$site/ok", "js": "await fetch('$url').catch(() => 0)"},
    "html": {"html": '<img src="$url">'},
    "html-base": {"html": '<img src="x">', "base_url": "$url/"},
    "without-scripts": {"url": _answer('<img src="$url">'), "render": {"javascript": False}},
    # A page from a public address, whose name then leads to another one: for its origin nothing has changed.
    "rebinding": {
        "url": _answer(
            "<script>"
            "const attack = async () => { for (let i = 0; i < 5; i++) await fetch('$url').catch(() => 0) }"
            "</script>",
            "Connection: close",
        ).replace("$site", "$origin"),
        "actions": [{"type": "evaluate", "script": "attack()"}],
    },
    "first-url-closed": {"url": "$closed"},
    "plain": {"url": "$url", "render": False},
    "plain-closed": {"url": "$closed", "render": False},
    "plain-redirect": {"url": "$site/redirect/302?to=$quoted", "render": False},
    "plain-auto": {"url": "$url", "render": "auto"},
    "plain-auto-redirect": {"url": "$site/redirect/307?to=$quoted", "render": "auto"},
}

# ---- Our own ports ---------------------------------------------------------------------------------------------------

# Of this machine, in all the spellings that lead to it.
OWN_HOSTS = (
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.0.2",
    "0x7f000001",
    "017700000001",
    "2130706433",
    "127\u30020\u30020\u30021",
    "%31%32%37.0.0.1",
    "0.0.0.0",
    "0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "loopback.test",
)


def own_ports_page(ports: list[int]) -> bytes:
    """A page whose `attack()` gives the URLs of this machine that answered, out of all hosts and ports."""
    return page(
        f"""<script>
const opened = url => new Promise((done, failed) => {{
  const socket = new WebSocket(url);
  socket.onopen = done;
  socket.onclose = failed;
}});
const all = {json.dumps(OWN_HOSTS)}.flatMap(host => {json.dumps(ports)}.map(port => `${{host}}:${{port}}`));
const attack = async () => {{
  const tries = all.map(at => fetch(`http://${{at}}/json/version`, {{mode: 'no-cors'}}).then(() => at, () => null));
  // Chromium delays what comes after a dozen that failed.
  const few = {json.dumps(ports)}.slice(0, 8).map(port => `ws://localhost:${{port}}/devtools/browser`);
  tries.push(...few.map(url => opened(url).then(() => url, () => null)));
  const answers = await Promise.all(tries);
  return answers.filter(at => at !== null);
}};
</script>"""
    )


# ---- What Chromium never sends ---------------------------------------------------------------------------------------

# Needs a secure context: these are tried from a page with TLS, and go to servers with TLS.
SECURE = frozenset(
    {
        *("cache", "fetch-later", "background-fetch", "audio-worklet", "paint-worklet"),
        *("payment", "federated", "passkey"),
        *(vector for vector in SCRIPTS if vector.startswith(("service-worker", "speculation", "prerender"))),
        *("webtransport", "alt-svc", "error-logging", "csp-report-to", "attribution-source", "presentation"),
    }
)

# Of every target; not among those that the system gives out.
CLOSED_PORT = 8199

# What sends no path has a port of its own.
RAW = (
    "preconnect",
    "preconnect-header",
    "webrtc-stun-udp",
    "webrtc-turn-udp",
    "webrtc-turn-tcp",
    "webrtc-turn-tls",
    "webrtc-peer-udp",
    "webrtc-peer-tcp",
    "webtransport",
    "alt-svc",
)

_NO_UDP = "goes over UDP, which the switches of cdp/launcher.py turn off"
_BLOCKED_WINDOW = "--block-new-web-contents"
_FOR_PEOPLE = "read only by what shows it to a person: tabs, a toolbar, developer tools"
_NO_SPECULATION = "Chromium does not speculate here; neither the headless shell nor the full browser was seen to"
_NO_PERMISSION = "needs the permission for background sync (with it, reports arrive), and all are denied"
# Never sent by the headless shell 156, wherever it leads, and why not.
NEVER = {
    **dict.fromkeys(("webrtc-stun-udp", "webrtc-turn-udp", "webrtc-peer-udp", "webtransport", "alt-svc"), _NO_UDP),
    **dict.fromkeys(("popup", "popup-noopener", "popup-location", "link-blank"), _BLOCKED_WINDOW),
    **dict.fromkeys(("icon", "touch-icon", "manifest", "search-description", "media-session"), _FOR_PEOPLE),
    **dict.fromkeys(("source-map", "source-map-header", "presentation"), _FOR_PEOPLE),
    **dict.fromkeys(("preconnect", "preconnect-header", "prerender-link", "prerendered-image"), _NO_SPECULATION),
    **dict.fromkeys((vector for vector in SCRIPTS if vector.startswith("speculation")), _NO_SPECULATION),
    **dict.fromkeys(("csp-report-to", "error-logging"), _NO_PERMISSION),
    "background-fetch": "the headless shell has none",
    "attribution-source": "needs a reporting site that is enrolled",
    "payment": "the headless shell has no payment handlers",
    "shared-worker-script": "a worker's script must be of the page's own origin",
    "stylesheet-header": "Chromium does not know it",
    "xml-entity": "Chromium does not load external entities",
    "content-location": "leads nowhere by itself",
    **dict.fromkeys(("first-url-closed", "plain-closed"), "nobody listens there"),
    "beacon-at-the-end": "the page may be gone before it",
}

# By what they need: a name or a literal, and the order of a run.
NOT_EVERYWHERE = ("passkey", "certificate-issuer", "rebinding", *RAW)

# Targets that no connection leads to, wherever it may lead, and why not.
UNREACHABLE = dict.fromkeys(("link-local-v6", "link-local-v6.test"), "needs a zone, and a URL has none")

# Names that a page mentions and never connects to: who looks them up is the browser itself.
NEVER_ASKED = ("prefetched.never.test", "linked.never.test", "headed.never.test")
_MENTIONED = (
    '<meta http-equiv="x-dns-prefetch-control" content="on"><link rel="dns-prefetch" href="//prefetched.never.test">'
    '<a href="http://linked.never.test/">x</a>' + _framed("x", "Link: <//headed.never.test>; rel=dns-prefetch")
)

# ---- Filling in ------------------------------------------------------------------------------------------------------


@attrs.frozen
class Target:
    """One way to name an address."""

    key: str
    host: str
    """As in a URL."""


@attrs.frozen
class Ports:
    """Of every server."""

    web: int
    tls: int
    chain: int
    """Whose certificate lacks its issuer, and says where to get it."""
    raw: dict[str, int]

    @property
    def all(self) -> set[int]:
        return {self.web, self.tls, self.chain, CLOSED_PORT, *self.raw.values()}


@attrs.frozen
class Filler:
    """Templates to what a page of one site has."""

    site: str
    """Host of the attacking page."""
    ports: Ports
    secure: bool = False

    @property
    def origin(self) -> str:
        """Of the attacking page."""
        return f"https://{self.site}:{self.ports.tls}" if self.secure else f"http://{self.site}:{self.ports.web}"

    def fill(self, template: str, vector: str, target: Target, number: int = 0) -> str:
        path = f"{target.host}:{{}}/v/{target.key}/{vector}"
        web, tls = path.format(self.ports.web), path.format(self.ports.tls)
        url = f"https://{tls}" if self.secure else f"http://{web}"
        raw = f"{target.host}:{self.ports.raw.get(vector, 0)}"
        values = {
            "$site_chain": f"https://{self.site}:{self.ports.chain}",
            "$site_tls": f"https://{self.site}:{self.ports.tls}",
            "$site": self.origin,
            "$requoted": quote(quote(url, safe=""), safe=""),
            "$quoted": quote(url, safe=""),
            "$spaced": raw.replace("[", "").replace("]:", " ") if "[" in raw else raw.replace(":", " "),
            "$raw": raw,
            "$url": url,
            "$tls": f"https://{tls}",
            "$wss": f"wss://{tls}",
            "$ws": f"ws://{web}",
            "$origin": f"http://{target.host}:{self.ports.web}",
            "$closed": f"http://{target.host}:{CLOSED_PORT}/",
            "$n": str(number),
        }
        for name, value in values.items():
            template = template.replace(name, value)
        return template

    def request(self, vector: str, target: Target) -> dict[str, Any]:
        """The parameters of one job of `REQUESTS`."""
        filled: dict[str, Any] = json.loads(self.fill(json.dumps(REQUESTS[vector]), vector, target))
        return filled

    def tried(self) -> list[str]:
        """The vectors that the page tries."""
        return [vector for vector in (*MARKUP, *SCRIPTS) if (vector in SECURE) == self.secure]

    def attack(self, target: Target) -> bytes:
        """The page that tries all of `MARKUP` and, when `attack()` is called, all of `SCRIPTS`.

        It is over when the server says so, which may wait for what is expected to arrive.
        """
        tried = self.tried()
        markup = [self.fill(MARKUP[vector], vector, target, at) for at, vector in enumerate(tried) if vector in MARKUP]
        acts = [
            f"async () => {{ {self.fill(SCRIPTS[vector], vector, target, at)} }}"
            for at, vector in enumerate(tried)
            if vector in SCRIPTS
        ]
        script = f"""const SITE_TLS = 'https://{self.site}:{self.ports.tls}';
{_HELPERS}
const acts = [{", ".join(acts)}];
const attack = async () => {{
  await Promise.all(acts.map(act => Promise.race([act().catch(() => 0), pause(1000)])));
  await fetch('/settled{"-secure" if self.secure else ""}/{quote(target.key)}');
}};"""
        mentioned = self.fill(_MENTIONED, "", target)
        return page(mentioned + "".join(markup) + f"<script>{script}</script>")
