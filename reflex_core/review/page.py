# SPDX-License-Identifier: Apache-2.0
"""Episodes as one HTML file that needs no network, no script and no other file. Everything recorded is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from reflex_core import __version__
from reflex_core.records.trace.verdicts import LINES_SHOWN
from reflex_core.review.bounds import Bounds
from reflex_core.review.episode_survey import Episode
from reflex_core.review.moments import Moment
from reflex_core.review.svg import joint_chart
from reflex_core.text.untrusted import printable

TEXT_LENGTH = 300
STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--line:#d5dae1;--card:#fff;--ground:#f4f6f8;
--bad:#b3261e;--warn:#9a5b00;--good:#1b6e3c;--raw:#d55e00;--served:#0072b2;--limit:#a3478a;--changed:#f6d9b8}
@media (prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#9aa6b5;--line:#37414f;--card:#1b222c;--ground:#12171e;
--bad:#ff8a80;--warn:#ffbf69;--good:#7bd88f;--raw:#ff9d5c;--served:#6cb8ee;--limit:#e29bd0;--changed:#5a4022}}
*{box-sizing:border-box}body{overflow-wrap:anywhere;margin:0;padding:clamp(10px,3vw,24px);background:var(--ground);color:var(--ink);
font:15px/1.45 system-ui,sans-serif}
main{max-width:1240px;margin:0 auto}h1{font-size:22px;margin:0 0 4px}h2{font-size:18px;margin:28px 0 4px}
h3{font-size:15px;margin:0 0 6px;overflow-wrap:anywhere}p{margin:2px 0;color:var(--soft);overflow-wrap:anywhere}
.warn{color:var(--warn)}.record{background:var(--card);border:1px solid var(--line);border-left:5px solid var(--line);
border-radius:6px;padding:12px 14px;margin:12px 0}.ERROR,.HELD{border-left-color:var(--bad)}.FALLBACK,.CLAMPED{border-left-color:var(--warn)}
.SERVED{border-left-color:var(--good)}.ERROR h3,.HELD h3{color:var(--bad)}.FALLBACK h3,.CLAMPED h3{color:var(--warn)}
.body{display:flex;flex-wrap:wrap;gap:14px;align-items:flex-start}.cameras img{display:block;width:220px;border-radius:4px}
figure{margin:0}figcaption{font-size:12px;color:var(--soft);max-width:230px;overflow-wrap:anywhere}
.joints{display:flex;flex-wrap:wrap;gap:8px 12px;flex:1 1 300px;min-width:0}.touched figcaption{color:var(--warn);font-weight:600}
ul{margin:6px 0;padding-left:20px;color:var(--soft);font-size:13px}.strip{display:flex;flex-wrap:wrap;gap:2px;margin:8px 0}
.strip a,.strip i{width:14px;height:14px;border-radius:2px;background:var(--good)}.strip .FALLBACK,.strip .CLAMPED{background:var(--warn)}
.strip .ERROR,.strip .HELD{background:var(--bad)}.strip i{opacity:.45}
.key span{margin-right:16px}
.key b{display:inline-block;width:18px;height:0;border-top:3px solid;vertical-align:middle;margin-right:5px}
svg text{font-size:9px;fill:var(--soft)}svg .axis{fill:none;stroke:var(--line)}svg polyline{fill:none;stroke-width:1.8}
.raw{stroke:var(--raw);stroke-dasharray:4 2}.served{stroke:var(--served)}.limit{stroke:var(--limit);stroke-dasharray:2 3}
.changed{fill:var(--changed)}.measured{fill:var(--ink)}
"""
KEY = (
    ("served", "served: what was commanded"), ("raw", "raw: what the policy made"), ("limit", "limit of the joint"),
    ("changed", "rows that the guard changed"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chapter:
    """One episode of a report. words: the verdict's word of every record, by seq; shown: the records that are drawn."""

    episode: Episode
    words: Sequence[tuple[int, str]]
    shown: Sequence[Moment]
    bounds: Bounds


def page(title: str, chapters: Iterable[Chapter], notes: Sequence[str]) -> Iterator[str]:
    """Yield the pieces of the file. notes: sentences about what is left out."""
    yield (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{_text(title)}</title><style>{STYLE}</style><main><h1>{_text(title)}</h1>"
        f"<p>Made by reflex {escape(__version__)}. Images are what the policy was given; positions in rad or m"
        " from the time of the image on, the dot is the measured one.</p>"
    )
    for note in notes:
        yield f'<p class="warn">{_text(note)}</p>'
    keys = "".join(f'<span><b style="border-color:var(--{name})"></b>{text}</span>' for name, text in KEY)
    yield f'<p class="key">{keys}</p>'
    found = list(chapters)
    for number, chapter in enumerate(found):
        if len(found) > 1:
            yield f"<h2>{_text(heading(chapter.episode))}</h2>"
        yield from _chapter(chapter, f"e{number}")
    yield "</main></html>\n"


def heading(episode: Episode) -> str:
    """Return the title of an episode: its id, how it ended, and the first reason that it was not plain."""
    note = f" ({episode.note})" if episode.note else ""
    reason = (
        f"; first event: {episode.reason}" if episode.reason else "; every chunk served as the policy made it"
    )
    return f"episode {episode.episode_id}: {episode.outcome}{note}{reason}"


def _chapter(chapter: Chapter, name: str) -> Iterator[str]:
    episode = chapter.episode
    for instruction in episode.instructions:
        yield f"<p>instruction: {_text(instruction or '(none)')}</p>"
    p99 = "" if episode.p99_ms is None else f", p99 {episode.p99_ms:.1f} ms"
    yield (
        f"<p>{episode.records} records in {episode.length_s:.1f} s: {episode.clamped} clamped, {episode.held} held,"
        f" {episode.errors} errors{p99}</p>"
    )
    if chapter.bounds.note:
        yield f"<p>{_text(chapter.bounds.note)}</p>"
    drawn = {moment.seq for moment in chapter.shown}
    cells = (
        f'<a class="{word}" href="#{name}-{seq}" title="record {seq}: {word}"></a>' if seq in drawn
        else f'<i class="{word}" title="record {seq}: {word}, not drawn"></i>'
        for seq, word in chapter.words
    )  # fmt: skip
    yield f'<div class="strip">{"".join(cells)}</div>'
    for moment in chapter.shown:
        yield from _record(moment, chapter.bounds, f"{name}-{moment.seq}")


def _record(moment: Moment, bounds: Bounds, anchor: str) -> Iterator[str]:
    verdict = moment.verdict
    yield f'<section class="record {verdict.word}" id="{anchor}"><h3>record {moment.seq}: {_text(verdict.sentence)}</h3>'
    budget = f" of {moment.budget_ms:.1f} ms" if moment.budget_ms is not None else ""
    yield f"<p>instruction: {_text(moment.instruction or '(none)')} · {moment.total_ms:.1f} ms{budget}</p>"
    if len(verdict.violations) > LINES_SHOWN:  # else they are in the title
        yield f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in verdict.violations)}</ul>"
    yield '<div class="body"><div class="cameras">'
    for camera, jpeg in moment.images.items():
        data = base64.b64encode(jpeg).decode("ascii")
        yield f'<figure><img src="data:image/jpeg;base64,{data}" alt="what the policy saw"><figcaption>{_text(camera)}</figcaption></figure>'
    for camera, why in moment.without.items():
        yield f"<p>{_text(camera)}: {_text(why)}</p>"
    if not moment.images and not moment.without:
        yield "<p>no camera</p>"
    yield '</div><div class="joints">'
    for column in sorted(range(len(moment.names)), key=lambda column: not moment.changed[:, column].any()):
        name = moment.names[column]
        changed = moment.changed[:, column]
        raw = moment.raw[:, column] if column < moment.raw.shape[1] else moment.served[:0, column]
        low, high = bounds.of(name)
        chart = joint_chart(
            raw, moment.served[:, column], changed, low, high, moment.dt_s, moment.measured.get(name)
        )
        touched = ' class="touched"' if changed.any() else ""
        count = f" · {int(changed.sum())}/{len(changed)} rows" if changed.any() else ""
        speed = f" · ≤{bounds.speeds[name]:.3g}/s" if changed.any() and name in bounds.speeds else ""
        yield f"<figure{touched}><figcaption>{_text(name)}{count}{speed}</figcaption>{chart}</figure>"
    yield "</div></div></section>"


def _text(text: str) -> str:
    return escape(printable(text)[:TEXT_LENGTH])
