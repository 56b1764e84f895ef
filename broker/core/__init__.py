"""Decisions, sans-IO: values and `now` in; facts and effects, or a typed refusal, out."""
