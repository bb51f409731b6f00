"""How this process asks for the names of hosts: again soon where an answer is lost."""

import os

# Whenever torch's store is reached, torch asks which name the address has, for messages; the number of this host's own
# is asked of the network, in a form that no /etc/hosts has (::ffff:127.0.0.1). By default an answer that is lost is
# waited for twice, 5 s each; so it is five times, 2 s each.
OPTIONS = "timeout:2 attempts:5"


def ask_again_soon() -> None:
    """Have a question for a name asked again after two seconds, unless the user has said how (RES_OPTIONS)."""
    os.environ.setdefault("RES_OPTIONS", OPTIONS)
