"""The page with everything on it that people may meet, behind a sign-in: `python -m tests.browser.every_screen`."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from backends.adapters.scripted import Script, Scripted, tokens
from backends.catalog.cards import Catalog
from backends.core.types import GenerationRequest
from backends.engine.engine import Engine
from backends.engine.pool import House, LocalModels
from backends.host.accounts import Accounts, new_account, write_accounts
from ui.server.serving import serve
from ui.visitors.people import People, SignIn

NAME, PASSWORD = "mia", "read aloud to all"
WIDE = "wide" * 40
COLUMNS = range(12)
ANSWER = f"""\
### A heading that begins too low

###### One that leaves levels out

Some **bold**, some *slanted* words, a [link](https://example.org), `inline code` and \\(x^2 + y^2\\).

1. First, `{WIDE}`
2. Second, the end of https://example.org/{WIDE}

> A quote of several words.

| {" | ".join(f"column {n}" for n in COLUMNS)} |
|{"---|" * len(COLUMNS)}
| {" | ".join(f"value {n}" for n in COLUMNS)} |

$$ {" + ".join(f"a_{{{n}}} x^{{{n}}}" for n in COLUMNS)} = 0 $$

```python
# A comment that is rather long: {WIDE}
@decorated
def greet(name: str = "world", times: int = 3) -> None:
    for _ in range(times):
        print(f"Hello, {{name}}!", True, None)
```

```html
<p class="a" id='b'>text &amp; more</p><!-- a comment -->
```

The answer is $\\boxed{{42}}$, and $\\frac{{{"+".join(f"b_{{{n}}}" for n in range(30))}}}{{2}}$ is wide.
"""
PLACES = '```json\n[{"bbox_2d": [234, 613, 562, 896], "label": "green triangle"}, {"bbox_2d": [50, 50, 80, 80]}]\n```'


def script(asked: GenerationRequest) -> Script:
    """An answer with everything; 'Where ...?' places, 'Break down.' a failure, 'Wait.' nothing for a long time."""
    question = asked.messages[-1].text
    if question == "Break down.":
        return Script(answer=("so ",), fail_after=0)
    if question == "Wait.":
        return Script(answer=("at last",), prompt_delay_s=120.0, reads=(0.01,))
    answer = PLACES if question.startswith("Where") else ANSWER
    return Script(thoughts=tokens("First, the **question** is read. Then `it` is answered."), answer=(answer,))


def engine(name: str, house: House) -> Engine:
    modalities = frozenset({"text", "image"})
    capabilities = replace(Scripted().capabilities, engine=name, modalities=modalities)
    models = LocalModels(
        Catalog.read(),
        "llama_cpp",
        capabilities,
        lambda card, fit: Scripted(script, modalities=modalities),
        lambda artefact: True,
        house=house,
    )
    return Engine(models)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        users, house = Path(folder) / "users.txt", House()
        write_accounts(users, {NAME: new_account(NAME, PASSWORD, host=True)})
        engines = {name: engine(f"{name} engine", house) for name in ("first", "second")}
        blocks = serve(engines, people=People(sign_in=SignIn(Accounts(users), "otter-2026")))
        print(blocks.local_url, flush=True)
        blocks.block_thread()
    sys.exit(0)
