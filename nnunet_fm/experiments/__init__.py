"""Many runs: sweep, find, score, summarise, report."""
