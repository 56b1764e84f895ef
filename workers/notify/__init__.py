"""The notify loop: carry notices to the people of `[notify]`, by webhook, ntfy and mail."""
