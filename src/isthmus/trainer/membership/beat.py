"""A heartbeat: what a worker says of itself about once a second, beside the exchanges."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields

from isthmus.errors import check_choice, check_integer

PHASES = {
    "starting": "reads data and finds the others",
    "computing": "makes its local steps",
    "stepping": "waits, in a step, for the others to come as far",
    "moving": "sends and receives rows of the network",
    "waiting": "is done, and waits for the others",
    "looking": "looks at the merged network",
    "saving": "writes a checkpoint",
    "ended": "has left",
}
ARRIVED = ("stepping", "moving", "waiting")  # in an exchange: nobody waits for such a worker
_LONGEST = 4096  # bytes of a beat that is read; a whole one has about 200


@dataclass(frozen=True)
class Beat:
    """One heartbeat.

    Attributes:
        seat: number that the worker was started with.
        incarnation: how many times its process was started again.
        process: its id on its host.
        round: rounds merged so far.
        phase: one of ``PHASES``.
        sent: bytes so far.
        received: bytes so far.
        loss: mean training loss of its last round, None before the first and where it is not finite.
        number: rises with every beat of a process.
        steps: begun so far.
        exchanges: entered so far.

    Raises:
        InvalidInput: a value that breaks its rule.
    """

    seat: int
    incarnation: int
    process: int
    round: int
    phase: str
    sent: int = 0
    received: int = 0
    loss: float | None = None
    number: int = 0
    steps: int = 0
    exchanges: int = 0

    def __post_init__(self) -> None:
        for name in ("seat", "incarnation", "process", "round", "sent", "received", "number", "steps", "exchanges"):
            check_integer(name, getattr(self, name), at_least=0)
        check_choice("phase", self.phase, PHASES)
        finite = isinstance(self.loss, (int, float)) and math.isfinite(self.loss)
        object.__setattr__(self, "loss", float(self.loss) if finite and self.loss is not None else None)

    @property
    def arrived(self) -> bool:
        """Whether the worker is in an exchange, so that nobody waits for it."""
        return self.phase in ARRIVED

    def awaited(self, other: Beat) -> bool:
        """Whether another worker, which waits, waits for this one."""
        return not self.arrived and self.round <= other.round

    def uneven(self, other: Beat) -> bool:
        """Whether this worker is in a step, of torch's own parts, that another has passed over.

        All enter the same exchanges between the same steps. So a step is missing where the other, with fewer steps, is
        in an exchange that this one had yet to enter; however old either beat is.
        """
        return self.phase == "stepping" and self.steps > other.steps and self.exchanges < other.exchanges

    def to_text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def of_text(cls, text: str | bytes) -> Beat | None:
        """Return the beat that the text holds; None where it holds none."""
        if len(text) > _LONGEST:
            return None
        try:
            said = json.loads(text)
            return cls(**{field.name: said[field.name] for field in fields(cls)})
        except (ValueError, TypeError, KeyError, RecursionError):  # InvalidInput is a ValueError
            return None
