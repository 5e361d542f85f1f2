"""statsd: packets to aggregates to named values, as etsy's daemon does it; pure, no sockets and no clock."""
