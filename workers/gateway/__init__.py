"""The doors to the network: enrolment with a server certificate, the mesh with mutual TLS.

Holds no state and no CA key; every request is put to the broker, which decides. Several of these
processes share the ports.
"""
