"""Who takes part: heartbeats beside the exchanges, and what is known of every worker."""
