"""The contract of the service: what programs written for shared-tensor 0.2.16 rely on, and more.

Clients and servers are two processes wherever that can make a difference, and one process as a
second parameter.
"""
