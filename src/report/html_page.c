/* The page around the sections: its style for light, dark, phone and paper, and the links to the sections.
 * There is no script in it. */
#include "html.h"

#include <string.h>

static const char *const style[] = {
    /* one palette, twice: every colour has a contrast of 4.5 to its ground */
    ":root{color-scheme:light dark;--bg:#faf9f6;--card:#fff;--ink:#1c2025;--muted:#5a626d;--line:#e3e0d8;"
    "--clean:#147d6d;--wrong:#b94d08;--ood:#6c4ab2;--a:#2461bd;--b:#b3307c;--both:#1c2025;--base:#656d78;"
    "--band0:#f1efe8;--band1:#f8f6f1;--on:#fff}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#14161a;--card:#1c1f24;--ink:#eceae4;--muted:#a3aab4;"
    "--line:#353a42;--clean:#46bda6;--wrong:#f0924a;--ood:#b69af0;--a:#7badfb;--b:#ef8ac2;--both:#eceae4;"
    "--base:#98a1ac;--band0:#23272d;--band1:#1e2126;--on:#14161a}}\n",
    "*{box-sizing:border-box}html{scroll-behavior:smooth;scroll-padding-top:4rem;-webkit-text-size-adjust:"
    "100%}\n"
    "body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,\"Segoe "
    "UI\",Roboto,\"Noto Sans\",sans-serif;font-variant-numeric:tabular-nums}\n"
    "main,header.top,footer{max-width:1120px;margin:0 auto;padding:0 1.5rem}\n"
    "h1,h2{font-family:\"Iowan Old Style\",\"Palatino Linotype\",Palatino,\"URW Palladio L\",Georgia,\"Noto "
    "Serif\",serif;font-weight:600;line-height:1.15;letter-spacing:-.01em;text-wrap:balance}\n"
    "h1{font-size:clamp(2rem,5.5vw,3.4rem);margin:.2rem 0 1rem;overflow-wrap:anywhere}\n"
    "h2{font-size:clamp(1.5rem,3.5vw,2.1rem);margin:0 0 .6rem}h3{font-size:1.05rem;margin:2rem 0 .4rem}\n"
    "section{padding:3.2rem 0 .6rem}.lead{max-width:46rem;color:var(--muted);margin:0 0 1.6rem}\n"
    ".eyebrow{color:var(--muted);font-size:.82rem;letter-spacing:.08em;text-transform:uppercase;margin:3."
    "2rem 0 "
    "0}.lede{font-size:1.15rem;max-width:46rem;margin:0}\n"
    "a{color:var(--a)}a:focus-visible,summary:focus-visible,label:focus-visible,input:focus-visible+label,"
    ".scroll:focus-visible{outline:3px solid var(--a);outline-offset:2px;border-radius:4px}\n"
    ".skip{position:absolute;left:-99rem;top:0;background:var(--card);padding:.7rem 1rem;z-index:3}"
    ".skip:focus{left:0}\n",
    "nav{position:sticky;top:0;z-index:2;background:var(--bg);border-bottom:1px solid "
    "var(--line);margin-top:2rem}"
    "nav ul{max-width:1120px;margin:0 auto;padding:0 1.5rem;list-style:none;display:flex;gap:1.4rem;"
    "overflow-x:auto}nav a{display:block;padding:.75rem 0;white-space:nowrap;text-decoration:none;"
    "color:var(--muted);font-size:.92rem}nav a:hover{color:var(--ink)}\n"
    ".cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:1rem;margin:0 0 1.4rem;"
    "padding:0;list-style:none}.cards li{background:var(--card);border:1px solid "
    "var(--line);border-radius:14px;"
    "padding:1.1rem 1.2rem}.cards "
    "b{display:block;font-size:1.85rem;white-space:nowrap;line-height:1.15;font-weight:600;"
    "letter-spacing:-.02em;margin:.2rem 0 .3rem}.cards .what{font-size:.9rem;font-weight:600}"
    ".cards .more{font-size:.88rem;color:var(--muted);display:block}.cards svg{width:100%;height:34px;"
    "display:block;margin-top:.5rem}\n"
    ".share{display:flex;height:54px;border-radius:12px;overflow:hidden;gap:2px;margin:0 0 .6rem}"
    ".share div{display:flex;align-items:center;justify-content:center;color:var(--on);font-weight:600;"
    "font-size:.9rem;white-space:nowrap;overflow:hidden;min-width:2px}\n"
    ".grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr));gap:1.2rem}"
    ".grid.small{grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr))}\n"
    "figure.chart{margin:0;background:var(--card);border:1px solid "
    "var(--line);border-radius:14px;padding:1.1rem "
    "1.2rem .8rem;min-width:0}figcaption{margin-bottom:.5rem;line-height:1.35}figcaption b{display:block;"
    "font-weight:600}figcaption span{color:var(--muted);font-size:.88rem}.plot svg{display:block;width:100%;"
    "height:auto;overflow:visible}.grid.wide{grid-template-columns:minmax(0,3fr) "
    "minmax(0,2fr);align-items:start}\n",
    "svg text{font:12px system-ui,-apple-system,\"Segoe UI\",Roboto,\"Noto Sans\",sans-serif;fill:var(--ink)}"
    "svg .tick,svg .label{fill:var(--muted)}svg .label{font-size:11.5px}svg .name{font-weight:600}"
    "svg .stage{fill:var(--muted);font-size:11px}svg .grid{stroke:var(--line);stroke-width:1}"
    "svg .axis{stroke:var(--muted);stroke-width:1}svg .line{fill:none;stroke-width:2;stroke-linejoin:round;"
    "stroke-linecap:round}svg .dashed{stroke-dasharray:5 4}svg .level{stroke-width:1.3;stroke-dasharray:2 4}"
    "svg .curve{fill:none;stroke-width:2.2}svg .mark{stroke:var(--ink);stroke-width:1.4;stroke-dasharray:4 3}"
    "svg .marked,svg .cut{font-size:11.5px;font-weight:600}svg .band0{fill:var(--band0)}"
    "svg .band1{fill:var(--band1)}svg .field{fill:var(--band1)}svg .cell{font-size:11.5px}"
    "svg .strong{fill:var(--on);font-weight:600}\n"
    ".legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:.1rem 0 .7rem;padding:0;"
    "font-size:.9rem}.legend "
    "i{display:inline-block;width:.8em;height:.8em;border-radius:3px;margin-right:.45em}\n"
    ".gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:.9rem;list-style:"
    "none;"
    "margin:0 0 1rem;padding:0}.gallery.pairs{grid-template-columns:repeat(auto-fill,minmax(216px,1fr))}"
    ".gallery li{background:var(--card);border:1px solid var(--line);border-radius:12px;overflow:hidden;"
    "font-size:.84rem;line-height:1.35}.gallery "
    "img{display:block;width:100%;height:auto;aspect-ratio:1;object-fit:contain;"
    "background:#000;image-rendering:pixelated}.gallery .two{display:flex;gap:2px;background:var(--line)}"
    ".gallery .two img{width:50%}.gallery p{margin:0;padding:.5rem .6rem .6rem;overflow-wrap:anywhere}"
    ".gallery s{color:var(--muted)}.gallery b{display:block}.gallery small{display:block;color:var(--muted);"
    "font-size:.78rem}.yes{color:var(--clean)}.no{color:var(--wrong)}\n",
    "details{margin:.5rem 0 0}summary{cursor:pointer;color:var(--muted);font-size:.86rem}"
    ".scroll{overflow:auto;max-height:24rem;margin-top:.5rem}table{border-collapse:collapse;font-size:.88rem;"
    "width:100%}th,td{text-align:right;padding:.28rem .7rem;border-bottom:1px solid "
    "var(--line);font-weight:400}"
    "thead th{position:sticky;top:0;background:var(--card);color:var(--muted);white-space:nowrap}"
    "th:first-child{text-align:left}table.facts td,table.facts th{text-align:left}table.facts "
    "td{overflow-wrap:anywhere}table.facts "
    "th{color:var(--muted);white-space:nowrap;vertical-align:top;width:17rem}code{font-size:.88em;overflow-"
    "wrap:anywhere}"
    "\n"
    ".facts-box{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:.4rem "
    ".8rem;margin:0 0 1rem;overflow-x:auto}.facts-box>summary{padding:.5rem "
    "0;font-size:1rem;color:var(--ink)}\n"
    ".tabs{display:flex;flex-wrap:wrap;gap:.5rem}.tabs>legend{color:var(--muted);font-size:.9rem;padding:0 0 "
    ".5rem}fieldset.tabs{border:0;margin:1.8rem 0 "
    "0;padding:0}.sheet "
    "h3{margin-top:2rem}.sheet>h3:first-child{margin-top:.6rem}.tabs>input{position:absolute;opacity:0;width:"
    "1px;"
    "height:1px}.tabs>label{border:1px solid var(--line);background:var(--card);border-radius:999px;"
    "padding:.3rem .95rem;cursor:pointer;font-size:.92rem}.tabs>input:checked+label{background:var(--ink);"
    "color:var(--bg);border-color:var(--ink)}.tabs>.sheet{display:none;order:9;width:100%;padding-top:1rem}\n"
    ".note{border-left:3px solid var(--wrong);padding:.1rem 0 .1rem 1rem;max-width:46rem}\n"
    "footer{color:var(--muted);font-size:.86rem;padding-top:3rem;padding-bottom:4rem}\n",
    "@media(max-width:860px){.grid.wide{grid-template-columns:minmax(0,1fr)}}\n@media(max-width:560px){main,"
    "header.top,footer,nav ul{padding-left:1rem;padding-right:1rem}"
    "section{padding-top:2.4rem}.cards{grid-template-columns:1fr 1fr;gap:.7rem}.cards li{padding:.9rem}"
    ".cards b{font-size:1.7rem}figure.chart{padding:.9rem .8rem .7rem}.share div{font-size:.78rem}.share "
    "span{display:none}"
    ".gallery{grid-template-columns:repeat(auto-fill,minmax(88px,1fr));gap:.6rem}}\n"
    "@media print{:root{--bg:#fff;--card:#fff;--ink:#000;--muted:#444;--line:#ccc}body{font-size:10.5pt}"
    "nav,.skip,.plot+details{display:none}section{padding-top:1.4rem}figure.chart,.cards li,.gallery "
    "li,tr{break-inside:avoid}h2,h3,.lead,figcaption{break-after:avoid}main,header.top,footer{max-width:none;"
    "padding:0}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}.gallery{grid-template-columns:"
    "repeat(8,1fr);gap:.4rem}.gallery.pairs{grid-template-columns:repeat(4,1fr)}.grid,.grid.small{"
    "grid-template-columns:1fr 1fr}.cards{grid-template-columns:repeat(4,1fr)}.cards b{font-size:1.5rem}"
    ".scroll{max-height:none}}\n"};

void html_open_page(mdm_text *t, const char *title, const char *const *sections) {
    mdm_text_add(
        t, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
           "content=\"width=device-width, initial-scale=1\">\n<meta name=\"generator\" "
           "content=\"mdm-dist\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src "
           "'none'; img-src data:; style-src 'unsafe-inline'\">\n<title>");
    html_text(t, title);
    mdm_text_add(t, "</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>\n");
    for (size_t i = 0; i < sizeof style / sizeof *style; i++)
        mdm_text_add_bytes(t, style[i], strlen(style[i]));
    /* which sheet of a set of tabs shows: the n-th radio button's */
    for (int i = 1; i <= 16; i++)
        mdm_text_add(t, "%s.tabs>input:nth-of-type(%d):checked~.sheet:nth-of-type(%d)", i > 1 ? "," : "", i,
                     i);
    mdm_text_add(t,
                 "{display:block}\n</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#main\">Skip to the "
                 "content</a>\n<nav aria-label=\"Sections\"><ul>");
    for (int i = 0; sections[i]; i += 2)
        mdm_text_add(t, "<li><a href=\"#%s\">%s</a></li>", sections[i], sections[i + 1]);
    mdm_text_add(t, "</ul></nav>\n");
}

void html_close_page(mdm_text *t, const char *version) {
    mdm_text_add(t, "</main>\n<footer><p>Written by mdm-dist ");
    html_text(t, version);
    mdm_text_add(
        t, ". Everything on this page comes from the run folder and the data set file; nothing is loaded "
           "from elsewhere.</p></footer>\n</body>\n</html>\n");
}
