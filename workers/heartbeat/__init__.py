"""The heartbeat loop: this node tells every key holder that it lives and what it serves."""
