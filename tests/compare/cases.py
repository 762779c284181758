"""What is compared: documents made for it, and the cases that take pictures of them.

Every document is static or brought to rest by its case, so that two pictures of it by one tool are the same.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import attrs
from PIL import Image, ImageDraw

from cdp.options import Clip, Format, Viewport

# -- Documents ---------------------------------------------------------------------------------------------------------


def document(body: str, style: str = "", head: str = "") -> str:
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Compared</title>{head}'
        f"<style>{style}</style></head><body>{body}</body></html>"
    )


def painting(image_format: str, size: tuple[int, int] = (240, 160), **options: object) -> bytes:
    """A picture with slopes, edges and a half transparent corner (white where the format has no transparency)."""
    image = Image.linear_gradient("L").resize(size)
    colours = Image.merge("RGBA", (image, image.rotate(90), image.rotate(180), Image.new("L", size, 255)))
    draw = ImageDraw.Draw(colours)
    draw.ellipse((30, 30, size[0] - 60, size[1] - 20), fill=(250, 200, 20, 255), outline=(20, 20, 90, 255), width=5)
    if image_format == "JPEG":
        colours = colours.convert("RGB")
    else:
        colours.paste((0, 120, 250, 90), (size[0] - 70, 0, size[0], 60))
    out = io.BytesIO()
    colours.save(out, image_format, **options)
    return out.getvalue()


DRAWING = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 120" width="200" height="120">
<defs><linearGradient id="g"><stop offset="0" stop-color="#e33"/><stop offset="1" stop-color="#33e"/></linearGradient>
<filter id="b"><feGaussianBlur stdDeviation="3"/></filter></defs>
<rect x="5" y="5" width="120" height="60" rx="12" fill="url(#g)" stroke="#222" stroke-width="2.5"/>
<circle cx="140" cy="70" r="40" fill="#2a6" opacity=".6"/><path d="M10 110 C60 20 120 130 190 30" fill="none"
stroke="#a0a" stroke-width="4" stroke-dasharray="9 4"/><text x="20" y="42" font-size="20" fill="#fff">Drawn</text>
<rect x="150" y="10" width="40" height="20" fill="#000" filter="url(#b)"/></svg>"""

PROSE = (
    "Sphinx of black quartz, judge my vow. The quick brown fox jumps over the lazy dog; 0123456789 — “quoted”, fi fl "
    "ffi, AVATAR, Wellcome. "
)

MIXED = document(
    f"""<h1>Mixed matter</h1><p>{PROSE * 3}</p><p class="serif"><i>{PROSE}</i><b>{PROSE}</b><u>underlined</u></p>
<div class="row"><div class="card one">shadow</div><div class="card two">radial</div><div class="card three">conic</div>
<div class="card four">border</div></div><ul><li>first<li>second<ol><li>inner<li>other</ol></ul>
<table><caption>Rows</caption><tr><th>Name<th>Value<th>Note<tr><td>alpha<td>1.25<td rowspan="2">spans<tr><td>beta
<td>2.5</table><hr><pre>code {{ indent: 4 }}</pre>""",
    """body{font:16px/1.5 sans-serif;margin:20px}.serif{font-family:serif;font-size:13.37px}
.row{display:flex;gap:16.5px}.card{width:150.4px;height:90.6px;padding:10px}
.one{box-shadow:3px 5px 12px 2px rgba(0,0,0,.5),inset 0 0 9px #36c;border-radius:14px}
.two{background:radial-gradient(circle at 30% 40%,#fd5,#e42 60%,#419)}
.three{background:conic-gradient(from 20deg,red,gold,lime,aqua,blue,red);border-radius:50%}
.four{border:7px dashed #393;outline:3px dotted #c39;outline-offset:4px}
table{border-collapse:collapse}td,th{border:1px solid #888;padding:3px 9px}
pre{background:#eee;font:11px 'Liberation Mono'}""",
)

LONG = document(
    '<header>fixed header</header><footer>fixed footer</footer><section class="hero"><h1>Full height</h1></section>'
    + "".join(
        f'<article style="background:hsl({i * 47},60%,90%)"><h2>Part {i}</h2><aside>sticky {i}</aside>'
        f"<p>{PROSE * 4}</p>"
        f'{"<section class=half>half the height</section>" if i % 3 == 0 else ""}<div class="end">sticks below</div>'
        "</article>"
        for i in range(8)
    )
    + '<section class="hero dynamic">dynamic height</section><p class="last">the last line</p>',
    """*{box-sizing:border-box}body{margin:0;font:17px/1.6 sans-serif}header,footer{position:fixed;left:0;right:0;
height:48px;background:rgba(30,30,60,.9);color:#fff;padding:10px;z-index:9}header{top:0}footer{bottom:0;background:#a33}
.hero{height:100vh;border:12px solid #297;background:#efe;padding-top:80px}.dynamic{height:100dvh;border-color:#729}
.half{height:50vh;width:50vw;background:#cde;border:1px solid}
article{padding:20px 30px}aside{position:sticky;top:60px;background:#fe8;width:120px}
.end{position:sticky;bottom:60px;background:#8ef;width:160px}""",
)

WIDE = document(
    '<div class="strip">'
    + "".join(f'<div style="background:hsl({i * 31},70%,70%)">column {i}</div>' for i in range(12))
    + f"</div><p>{PROSE * 2}</p>",
    "body{margin:0;font:15px sans-serif}.strip{display:flex;width:2900px;height:300px}.strip div{flex:1;padding:9px}",
)

BOXES = document(
    """<div id="rotated" class="b" style="left:520.25px;top:90.75px;transform:rotate(27deg)">turned</div>
<div id="fraction" class="b" style="left:40.37px;top:60.61px;width:150.5px;height:70.49px">fraction</div>
<div id="halves" class="b" style="left:240.5px;top:60.5px;width:101px;height:61px">halves</div>
<div id="scaled" class="b" style="left:800px;top:80px;transform:scale(1.33) skewX(12deg)">scaled</div>
<div id="deep" class="b" style="left:1000px;top:300px;transform:perspective(300px) rotateY(40deg)">deep</div>
<div id="shadow" class="b" style="left:60px;top:220px;box-shadow:0 0 30px 8px #b2f">shadow</div>
<div id="edge" class="b" style="left:-45.5px;top:330px">over the left edge</div>
<div id="huge" class="b" style="left:30px;top:900px;width:1500px;height:1300px;background:
linear-gradient(45deg,#fa0,#05a)">larger than any viewport</div>
<div id="far" class="b" style="left:2400.4px;top:3000.6px">far away</div>
<p id="wrap" style="position:absolute;left:300px;top:220px;width:180px">before <span id="inline">an inline element that
is broken into several lines</span> after</p>
<div id="scroller" style="position:absolute;left:560px;top:260px;width:220px;height:140px;overflow:auto;border:2px
solid">
<div style="width:600px;height:900px;background:repeating-linear-gradient(30deg,#eee 0 9px,#cdf 9px 20px);
position:relative"><div id="inside" class="b" style="left:300px;top:600px">inside a scroller</div></div></div>
<div id="smooth" style="position:absolute;left:60px;top:430px;width:200px;height:120px;overflow:auto;
scroll-behavior:smooth"><div style="height:1500px"></div><b id="smoothed">smooth end</b></div>
<svg style="position:absolute;left:900px;top:430px" width="200" height="120"><g id="group" transform="rotate(12 90 60)">
<rect x="40.3" y="30.7" width="90.2" height="44.4" fill="#c52"/><text x="50" y="60">group</text></g></svg>
<div id="under" class="b" style="left:300px;top:5px;height:70px">under the bar</div><div id="bar">fixed bar</div>
<div id="stuck">stuck</div>""",
    """body{margin:0;font:14px sans-serif;height:3400px}.b{position:absolute;width:130px;height:64px;
background:#cfe8d8;border:3px solid #264;padding:4px;box-sizing:border-box}#bar{position:fixed;top:0;left:0;right:0;
height:30px;background:rgba(200,40,40,.7)}#stuck{position:sticky;top:40px;margin-top:600px;width:90px;
background:gold}""",
)

TRANSPARENT = document(
    """<div id="card" style="width:240.5px;height:120px;border-radius:30px;background:rgba(30,90,200,.4);
box-shadow:8px 8px 20px #0008;padding:9px">half <b>opaque</b> text</div><div style="height:1200px"></div><p>the
end</p>""",
    "body{margin:30px;font:20px sans-serif}",
)

PHONE_BODY = f"""<h1>Phone</h1><p>{PROSE * 6}</p><div id="query">which device</div><input value="typed">
<select><option>chosen</select><button>Button</button><div id="row">
<i></i><i></i><i></i></div><section>full height</section><p>{PROSE * 4}</p><footer>footer</footer>"""
PHONE_STYLE = """body{margin:12px;font:16px/1.45 sans-serif}#query{background:#fcc;padding:8px}
@media(pointer:coarse){#query{background:#cfc;font-size:22px}}@media(max-width:500px){h1{color:#c3c}}
i{display:inline-block;width:31%;height:50px;background:#69c;margin:1%}section{height:100vh;background:#ffd}
footer{position:fixed;bottom:0;left:0;right:0;background:#345;color:#fff;padding:10px}"""

PICTURES = document(
    '<img src="/painting.png"><img src="/painting.jpg" width="301"><img src="/drawing.svg" width="333">'
    '<img src="/painting.webp" style="image-rendering:pixelated;width:400px"><img src="/painting.gif">'
    '<div style="width:500px;height:180px;background:url(/painting.png) 13px 7px/97.5px repeat"></div>'
    '<picture><source srcset="/painting.png 1x, /large.png 2x"><img id="dense" width="240"></picture>'
    '<img src="/none.png" alt="missing" width="90" height="40">',
    "body{margin:8px;background:#eee}",
)

CANVAS = document(
    """<canvas id="c" width="640" height="400"></canvas><canvas id="d" width="300" height="200"
style="width:450px"></canvas><script>const g=c.getContext('2d'),f=g.createLinearGradient(0,0,640,400);
f.addColorStop(0,'#08f');f.addColorStop(1,'#f80');g.fillStyle=f;g.fillRect(0,0,640,400);g.font='bold 40px sans-serif';
g.fillStyle='#fff';g.fillText('Canvas text, 文字 😀',30.5,80.25);g.shadowBlur=15;g.shadowColor='#000';g.lineWidth=3.5;
g.beginPath();for(let i=0;i<600;i++)g.lineTo(20+i,250+90*Math.sin(i/23));g.stroke();
g.globalAlpha=.5;g.rotate(.2);g.fillRect(300,100,120,120);const h=d.getContext('2d'),p=h.createImageData(300,200);
for(let i=0;i<p.data.length;i+=4){p.data[i]=i%251;p.data[i+1]=i%241;p.data[i+2]=i%239;p.data[i+3]=255}
h.putImageData(p,0,0)</script>""",
    "body{margin:10px}",
)

LETTERS = document(
    """<p lang="zh">汉字：永和九年，岁在癸丑，暮春之初。</p><p lang="zh-TW">漢字：永和九年，歲在癸丑。</p>
<p lang="ja">日本語：吾輩は猫である。名前はまだ無い。カタカナ ﾊﾝｶｸ</p><p lang="ko">한국어: 나랏말싸미 듕귁에 달아</p>
<p>Emoji 😀 👩‍👩‍👧‍👦 🇨🇭 🏳️‍🌈 👍🏽 1️⃣ ❤️ ♥︎</p><p dir="rtl" lang="ar">السلام عليكم ورحمة الله</p><p dir="rtl"
lang="he">שלום עולם</p>
<p lang="hi">हिन्दी क्षत्रिय</p><p lang="th">ภาษาไทย</p><p>Ελληνικά, Кириллица, Tiếng Việt, Z̶a̴l̷g̵o̶, ﬁ ½ ∑ ∫ √ →
★</p>
<p style="letter-spacing:.21em;font-size:21.7px">Spaced letters</p><p style="font-size:9px">Tiny letters</p>
<p style="writing-mode:vertical-rl;height:160px;float:right" lang="ja">縦書きの文章、12月。</p>
<p style="font-weight:900;font-style:italic;-webkit-text-stroke:1px #06c">Heavy</p><p><math><mfrac><mi>a</mi>
<msqrt><mi>b</mi><mo>+</mo><mn>1</mn></msqrt></mfrac></math></p><p style="text-shadow:2px 2px 3px #f0f">Shadow</p>
<p style="columns:3;text-align:justify;hyphens:auto">"""
    + PROSE * 5
    + "</p>",
    "body{margin:16px;font:24px/1.4 sans-serif}",
)

FORMS = document(
    """<input id="text" value="text in a field" ><input type="checkbox" checked><input type="radio" checked>
<input type="range" value="30"><input type="date" value="2024-02-29"><input type="color" value="#33aa88">
<select><option>one<option>two</select><select multiple><option selected>a<option>b</select><textarea>several
lines</textarea><button>Press</button><button disabled>Off</button><progress value=".4"></progress><meter value=".7">
</meter><details open><summary>Summary</summary>more</details><fieldset><legend>Legend</legend><input
placeholder="hint">
</fieldset><input type="file"><dialog open>dialog</dialog><div contenteditable>edited</div>""",
    "body{margin:20px;font:15px sans-serif}input,textarea{font-family:sans-serif}",
)

EFFECTS = document(
    f"""<div class="stage"><div style="mix-blend-mode:multiply;background:#f66">multiply</div>
<div style="backdrop-filter:blur(5px) hue-rotate(90deg)">backdrop</div><div style="filter:grayscale(.7)
drop-shadow(5px 5px 4px #00f)">filter</div><div style="clip-path:polygon(50% 0,100% 50%,50% 100%,0 50%)">clipped</div>
<div style="mask:linear-gradient(90deg,#000,#0000)">masked</div><div style="opacity:.55;
will-change:transform">layer</div>
<div style="zoom:1.37">zoomed</div><div style="transform:translate(3.3px,4.7px) rotate(.7deg)">slightly</div>
<div style="border-image:linear-gradient(red,blue) 9 / 9px solid;border:9px solid">border image</div>
<div style="background:#fff5 url(/drawing.svg) center/contain;isolation:isolate">svg</div></div>
<p style="overflow:hidden;text-overflow:ellipsis;white-space:nowrap;width:300px">{PROSE}</p>""",
    """body{margin:0;font:16px sans-serif}.stage{display:grid;grid-template-columns:repeat(4,1fr);gap:1.3vw;
padding:20px;
background:repeating-linear-gradient(45deg,#fd7 0 10px,#7df 10px 20px)}.stage div{height:110px;padding:8px;
background:#fffb}""",
)

FRAMES = document(
    """<iframe src="/mixed" width="420" height="300"></iframe><iframe srcdoc="<body style='background:#dfd'>srcdoc
<b>bold</b></body>" style="border:4px solid #c60;transform:rotate(3deg)"></iframe><iframe id="scrolled" src="/long"
width="500" height="260"></iframe><object data="/drawing.svg" width="260"></object><iframe id="foreign" width="380"
height="240"></iframe><script>foreign.src = location.href.replace('127.0.0.1', 'localhost').replace(/[^/]+$/, 'canvas')
</script>""",
    "body{margin:10px}",
)

SCHEME = document(
    f"""<meta name="color-scheme" content="light dark"><h1>Scheme</h1><p>{PROSE}</p><input value="field">
<button>Button</button><div class="motion">motion</div><div class="print">media</div><a href="/">link</a>""",
    """body{font:18px sans-serif}@media(prefers-color-scheme:dark){h1{color:#fc6}}.motion,.print{padding:20px;
margin:8px;
background:#fcc}@media(prefers-reduced-motion:reduce){.motion{background:#6c6}}@media print{.print{background:#66c}
body{margin:40px}}""",
)

MOVING = document(
    """<div class="endless">endless</div><div class="once">once</div><div class="late">late</div><div class="passing">
passing</div><input autofocus value="caret"><textarea>other</textarea><p class="pulse">pulse</p>""",
    """body{margin:30px;font:20px sans-serif}textarea{font:inherit}div{width:120px;height:60px;background:#8ad;
margin:8px}
.endless{animation:spin 3s linear infinite}.once{animation:slide 60s forwards}.late{animation:slide 9s 90s both}
.passing{transition:margin-left 70s}.passing.on{margin-left:400px}.pulse{animation:fade 2s alternate infinite}
@keyframes spin{to{transform:rotate(360deg)}}@keyframes slide{from{margin-left:50px}to{margin-left:300px;
background:#e84}}
@keyframes fade{to{opacity:.1}}""",
)

LAZY_LAYOUT = document(
    "".join(f"<section><h2>Section {i}</h2><p>{PROSE * 3}</p></section>" for i in range(30)),
    """body{margin:0;font:16px sans-serif}section{content-visibility:auto;contain-intrinsic-size:auto 200px;
padding:10px;
border-bottom:1px solid}""",
)

ATTACHED = document(
    f'<div class="tall"><h1>Attached ground</h1><p>{PROSE * 20}</p></div><div class="snap"><section>one</section>'
    "<section>two</section></div>",
    """html{scroll-behavior:smooth}body{margin:0;font:16px sans-serif;background:linear-gradient(#fde,#def) fixed}
.tall{height:1600px;padding:20px}.snap section{height:70vh;background:url(/drawing.svg) fixed;border:3px solid}""",
)

FRACTIONAL_PAGE = document(
    '<div style="height:1003.37px;width:1311.6px;background:linear-gradient(90deg,#fff,#5a5)">fraction</div>'
    '<div style="height:.4px;background:#f00"></div>',
    "body{margin:0}",
)

INNER_SCROLL = document(
    f"<nav>side</nav><main><p>{PROSE * 60}</p></main>",
    """body{margin:0;height:100vh;display:flex;overflow:hidden;font:18px sans-serif}nav{width:200px;background:#ccd}
main{flex:1;overflow:auto;padding:20px}""",
)

WEB_FONT = document(
    f"<h1>Web font</h1><p>{PROSE}</p>",
    "@font-face{font-family:own;src:url(/font.ttf)}body{font:22px own,serif}",
)

GENERIC = document(
    "".join(
        f'<p style="font-family:{name}">{name}: {PROSE}</p>'
        for name in ("serif", "sans-serif", "monospace", "cursive", "fantasy", "system-ui", "math", "emoji")
    ),
    "body{font-size:17px}",
)

DOCUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "/mixed": MIXED,
        "/long": LONG,
        "/wide": WIDE,
        "/boxes": BOXES,
        "/transparent": TRANSPARENT,
        "/phone": document(PHONE_BODY, PHONE_STYLE, '<meta name="viewport" content="width=device-width">'),
        "/phone-plain": document(PHONE_BODY, PHONE_STYLE),
        "/phone-600": document(PHONE_BODY, PHONE_STYLE, '<meta name="viewport" content="width=600">'),
        "/phone-zoomed": document(
            PHONE_BODY, PHONE_STYLE, '<meta name="viewport" content="width=device-width,initial-scale=1.5">'
        ),
        "/pictures": PICTURES,
        "/canvas": CANVAS,
        "/letters": LETTERS,
        "/forms": FORMS,
        "/effects": EFFECTS,
        "/frames": FRAMES,
        "/scheme": SCHEME,
        "/moving": MOVING,
        "/lazy-layout": LAZY_LAYOUT,
        "/attached": ATTACHED,
        "/fractional": FRACTIONAL_PAGE,
        "/inner-scroll": INNER_SCROLL,
        "/web-font": WEB_FONT,
        "/generic": GENERIC,
        "/drawing": document(f"{DRAWING}<p>{DRAWING.replace('200', '260')}</p>", "body{margin:3.5px}"),
    }
)


def files() -> dict[str, tuple[bytes, str]]:
    """What the documents load, with its content type."""
    return {
        "/painting.png": (painting("PNG"), "image/png"),
        "/large.png": (painting("PNG", (480, 320)), "image/png"),
        "/painting.jpg": (painting("JPEG", quality=85), "image/jpeg"),
        "/painting.webp": (painting("WEBP", lossless=True), "image/webp"),
        "/painting.gif": (painting("GIF"), "image/gif"),
        "/drawing.svg": (DRAWING.encode(), "image/svg+xml"),
    }


# -- Cases -------------------------------------------------------------------------------------------------------------

# Brings a page to rest: letters and pictures there, two frames painted.
REST = """await document.fonts.ready;
await Promise.allSettled([...document.images].map(image => image.decode()));
await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));"""

Tool = Literal["us", "puppeteer", "playwright"]
TOOLS: tuple[Tool, ...] = ("us", "puppeteer", "playwright")


@attrs.frozen(kw_only=True)
class Case:
    """One picture that every tool takes."""

    name: str
    path: str
    viewport: Viewport = attrs.field(factory=lambda: Viewport(1000, 700))
    first: str = ""
    """A script that runs before the page is brought to rest."""
    color_scheme: Literal["light", "dark"] | None = None
    reduced_motion: bool = False
    media: Literal["screen", "print"] | None = None
    full_page: bool = False
    selector: str | None = None
    clip: Clip | None = None
    format: Format = "png"
    quality: int | None = None
    transparent: bool = False
    disable_animations: bool = False
    without: tuple[Tool, ...] = ()
    """Who cannot do it."""

    @property
    def script(self) -> str:
        """An expression that gives a promise."""
        return f"(async () => {{ {self.first}\n{REST} }})()"


def _scaled(scale: float, width: int = 1000, height: int = 700) -> Viewport:
    return Viewport(width, height, scale)


PHONE = Viewport(390, 844, 3, mobile=True, touch=True)
TABLET = Viewport(820, 600, 2, mobile=True, touch=True)

CASES: tuple[Case, ...] = (
    # Scale factors.
    *(Case(name=f"mixed-{scale:g}x", path="/mixed", viewport=_scaled(scale)) for scale in (1, 1.25, 1.5, 2, 3, 0.5)),
    Case(name="mixed-full-1.5x", path="/mixed", viewport=_scaled(1.5, 801, 401), full_page=True),
    # Full pages.
    Case(name="long-full", path="/long", full_page=True),
    Case(name="long-full-2x", path="/long", viewport=_scaled(2), full_page=True),
    Case(name="long-full-1.5x", path="/long", viewport=_scaled(1.5), full_page=True),
    Case(name="long-full-0.5x", path="/long", viewport=_scaled(0.5), full_page=True),
    Case(name="long-full-scrolled", path="/long", first="scrollTo(0, 913)", full_page=True),
    Case(name="long-full-narrow", path="/long", viewport=Viewport(333, 517), full_page=True),
    Case(name="long-viewport", path="/long"),
    Case(name="long-viewport-scrolled", path="/long", first="scrollTo(0, 913.5)"),
    Case(name="long-viewport-end-2x", path="/long", viewport=_scaled(2), first="scrollTo(0, 1e6)"),
    Case(name="wide-full", path="/wide", full_page=True),
    Case(name="wide-full-scrolled", path="/wide", first="scrollTo(500, 0)", full_page=True),
    Case(name="short-full", path="/scheme", full_page=True),
    Case(name="fractional-full", path="/fractional", full_page=True),
    Case(name="fractional-full-1.5x", path="/fractional", viewport=_scaled(1.5), full_page=True),
    Case(name="lazy-layout-full", path="/lazy-layout", full_page=True),
    Case(name="attached-full", path="/attached", full_page=True),
    Case(name="attached-viewport-scrolled", path="/attached", first="scrollTo({top: 800, behavior: 'instant'})"),
    Case(name="inner-scroll-full", path="/inner-scroll", full_page=True),
    Case(name="boxes-full", path="/boxes", full_page=True),
    # Elements.
    *(
        Case(name=f"element-{name}", path="/boxes", selector=f"#{name}")
        for name in (
            "rotated",
            "fraction",
            "halves",
            "scaled",
            "deep",
            "shadow",
            "edge",
            "huge",
            "far",
            "inline",
            "inside",
            "smoothed",
            "group",
            "under",
            "bar",
            "stuck",
        )
    ),
    *(
        Case(name=f"element-{name}-{scale:g}x", path="/boxes", viewport=_scaled(scale), selector=f"#{name}")
        for name, scale in (("fraction", 2), ("rotated", 1.5), ("halves", 3), ("far", 2), ("huge", 0.5))
    ),
    Case(name="element-bar-scrolled", path="/boxes", first="scrollTo(0, 1500)", selector="#bar"),
    Case(name="element-stuck-scrolled", path="/boxes", first="scrollTo(0, 1500)", selector="#stuck"),
    Case(name="element-under-scrolled", path="/boxes", first="scrollTo(0, 1500)", selector="#under"),
    Case(name="element-fraction-scrolled", path="/boxes", first="scrollTo(0, 20)", selector="#fraction"),
    Case(name="element-article", path="/long", selector="article:nth-of-type(4)"),
    Case(name="element-hero", path="/long", selector=".dynamic"),
    Case(name="element-smooth-page", path="/attached", selector=".snap"),
    # Transparent.
    Case(name="transparent-page", path="/transparent", transparent=True),
    Case(name="transparent-page-webp", path="/transparent", transparent=True, format="webp", quality=100),
    Case(name="transparent-full", path="/transparent", transparent=True, full_page=True),
    Case(name="transparent-element", path="/transparent", transparent=True, selector="#card"),
    Case(name="transparent-element-2x", path="/transparent", viewport=_scaled(2), transparent=True, selector="#card"),
    # Clips.
    Case(name="clip-inside", path="/mixed", clip=Clip(100, 80, 300, 200)),
    Case(name="clip-fraction", path="/mixed", clip=Clip(100.4, 80.6, 300.5, 200.3)),
    Case(name="clip-fraction-2x", path="/mixed", viewport=_scaled(2), clip=Clip(100.3, 80.6, 300.5, 200.3)),
    Case(name="clip-below", path="/long", clip=Clip(50, 1500, 400, 600)),
    Case(name="clip-across", path="/long", clip=Clip(0, 600, 1000, 300)),
    Case(name="clip-right", path="/wide", clip=Clip(1500, 20, 700, 250)),
    Case(name="clip-scrolled", path="/long", first="scrollTo(0, 700)", clip=Clip(10, 20, 300, 200)),
    Case(name="clip-larger", path="/long", clip=Clip(0, 0, 1400, 900), without=("playwright",)),
    Case(name="clip-outside", path="/scheme", clip=Clip(1200, 900, 300, 200), without=("playwright",)),
    # Phones.
    *(
        Case(name=f"{path[1:]}", path=path, viewport=PHONE)
        for path in ("/phone", "/phone-plain", "/phone-600", "/phone-zoomed")
    ),
    *(
        Case(name=f"{path[1:]}-full", path=path, viewport=PHONE, full_page=True)
        for path in ("/phone", "/phone-plain", "/phone-600", "/phone-zoomed")
    ),
    Case(name="phone-element", path="/phone", viewport=PHONE, selector="#row"),
    Case(name="phone-plain-element", path="/phone-plain", viewport=PHONE, selector="#row"),
    Case(name="phone-full-scrolled", path="/phone", viewport=PHONE, first="scrollTo(0, 300)", full_page=True),
    Case(name="tablet-long-full", path="/long", viewport=TABLET, full_page=True),
    Case(name="touch-only", path="/phone", viewport=Viewport(390, 844, touch=True)),
    Case(name="mobile-only", path="/phone", viewport=Viewport(390, 844, mobile=True)),
    # Media.
    Case(name="scheme-dark", path="/scheme", color_scheme="dark"),
    Case(name="scheme-light", path="/scheme", color_scheme="light"),
    Case(name="scheme-dark-transparent", path="/scheme", color_scheme="dark", transparent=True),
    Case(name="motion-reduced", path="/scheme", reduced_motion=True),
    Case(name="media-print", path="/scheme", media="print"),
    Case(name="media-print-full", path="/long", media="print", full_page=True),
    # Matter.
    *(
        Case(name=path[1:], path=path)
        for path in ("/pictures", "/canvas", "/letters", "/effects", "/frames", "/drawing")
    ),
    Case(name="web-font", path="/web-font"),
    Case(name="generic-fonts", path="/generic"),
    Case(name="letters-2x", path="/letters", viewport=_scaled(2)),
    Case(name="letters-1.5x-full", path="/letters", viewport=_scaled(1.5), full_page=True),
    Case(name="pictures-2x", path="/pictures", viewport=_scaled(2)),
    Case(name="effects-1.5x", path="/effects", viewport=_scaled(1.5)),
    Case(name="frames-full", path="/frames", viewport=_scaled(1, 600, 400), full_page=True),
    Case(name="forms", path="/forms"),
    # Encodings.
    *(
        Case(name=f"{image_format}-{quality}", path="/mixed", format=image_format, quality=quality)
        for image_format in ("jpeg", "webp")
        for quality in (80, 100)
    ),
    Case(name="jpeg-full-2x", path="/pictures", viewport=_scaled(2), format="jpeg", quality=80, full_page=True),
    # Animations: puppeteer has nothing for them.
    Case(
        name="animations-disabled",
        path="/moving",
        first="document.querySelector('.passing').classList.add('on')",
        disable_animations=True,
        without=("puppeteer",),
    ),
    Case(
        name="animations-disabled-full",
        path="/moving",
        viewport=Viewport(500, 200),
        disable_animations=True,
        full_page=True,
        without=("puppeteer",),
    ),
    Case(
        name="caret-hidden",
        path="/forms",
        first="document.querySelector('#text').focus()",
        disable_animations=True,
        without=("puppeteer",),
    ),
)
