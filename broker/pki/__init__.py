"""X.509 on plain values: authority, requests, leaf profile, bundle, CRL, sealed keys, words."""
