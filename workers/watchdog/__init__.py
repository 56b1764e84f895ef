"""Watchdog: makes supervisord quick, counts restarts, kills what hangs, repairs FATAL programs."""
