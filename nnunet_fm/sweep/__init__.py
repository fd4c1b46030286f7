"""Many runs of one benchmark: planned, run, continued and watched as one."""
