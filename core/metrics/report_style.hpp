// The report's style sheet and script, inlined into the page so that it needs no network.
#pragma once

#include <string_view>

namespace troupe {

inline constexpr std::string_view kReportStyle = R"css(
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--text:#1d2430;--soft:#667085;--grid:#e6e9ee;--good:#067647;--bad:#b42318;
--c0:#2563eb;--c1:#ea580c;--c2:#059669;--c3:#9333ea;--c4:#dc2626;--c5:#0891b2;--c6:#a16207;--c7:#db2777}
@media(prefers-color-scheme:dark){:root{--page:#0f131a;--card:#181e28;--text:#e6eaf1;--soft:#97a3b6;--grid:#2a3342;--good:#4ade80;--bad:#f87171;
--c0:#60a5fa;--c1:#fb923c;--c2:#34d399;--c3:#c084fc;--c4:#f87171;--c5:#22d3ee;--c6:#facc15;--c7:#f472b6}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1240px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:24px;margin:0 0 2px;letter-spacing:-.01em}h2{font-size:17px;margin:34px 0 12px}
.sub{color:var(--soft);margin:0 0 22px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}
.tile,figure,.box{background:var(--card);border:1px solid var(--grid);border-radius:12px}
.tile{padding:12px 16px}.tile span{display:block;color:var(--soft);font-size:13px}
.tile b{font-size:22px;white-space:nowrap;font-variant-numeric:tabular-nums;font-weight:650}
.tile em{font-style:normal;font-size:13px;margin-left:6px;color:var(--soft)}.tile em.up{color:var(--good)}.tile em.down{color:var(--bad)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(380px,100%),1fr));gap:14px}
figure{margin:0;padding:12px 12px 6px}figcaption{font-size:14px;min-height:22px;padding:0 4px 6px}
figcaption i{color:var(--soft);font-style:normal;font-size:12px}
.readout{float:right;font-size:12px;color:var(--soft);font-variant-numeric:tabular-nums}
.key{color:var(--c);white-space:nowrap}.key::before{content:"";display:inline-block;width:9px;height:9px;border-radius:3px;background:var(--c);margin:0 4px 0 6px}
svg{display:block;width:100%;height:auto;touch-action:pan-y}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}.c5{--c:var(--c5)}.c6{--c:var(--c6)}.c7{--c:var(--c7)}
.line{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}.line.raw{opacity:.28;stroke-width:1.1}
.dot,.bar{fill:var(--c)}.bar{opacity:.85}.grid{stroke:var(--grid)}.tick{fill:var(--soft);font-size:10.5px}
.cursor{stroke:var(--soft);stroke-dasharray:3 3;visibility:hidden}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(380px,100%),1fr));gap:14px;align-items:start}
.box{padding:6px 16px 10px;overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:14px}
td,th{text-align:left;padding:5px 10px 5px 0;border-bottom:1px solid var(--grid);vertical-align:top;font-weight:400}
tr:last-child td,tr:last-child th{border-bottom:0}th{color:var(--soft);width:42%}td{font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
pre{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,monospace;white-space:pre-wrap;overflow-wrap:anywhere;margin:8px 0}
summary{cursor:pointer;padding:6px 0}footer{color:var(--soft);font-size:13px;margin-top:34px}
)css";

// The pointer over a chart shows the values of the nearest step in its caption.
inline constexpr std::string_view kReportScript = R"js(
for(const f of document.querySelectorAll('figure[data-points]')){
  const d=JSON.parse(f.dataset.points),svg=f.querySelector('svg'),cur=f.querySelector('.cursor'),out=f.querySelector('.readout'),rest=[...out.childNodes];
  svg.addEventListener('pointermove',e=>{
    const r=svg.getBoundingClientRect(),x=(e.clientX-r.left)/r.width*svg.viewBox.baseVal.width;
    let i=0;d.px.forEach((p,k)=>{if(Math.abs(p-x)<Math.abs(d.px[i]-x))i=k});
    cur.setAttribute('x1',d.px[i]);cur.setAttribute('x2',d.px[i]);cur.style.visibility='visible';
    out.replaceChildren('step '+Math.round(d.x[i])+' ');
    d.s.forEach((s,k)=>{if(s.y[i]===null)return;const t=document.createElement('span');t.className='key c'+k%8;
      t.textContent=(d.s.length>1?s.name+' ':'')+s.y[i];out.append(t)});
  });
  svg.addEventListener('pointerleave',()=>{cur.style.visibility='hidden';out.replaceChildren(...rest)});
}
)js";

}  // namespace troupe
