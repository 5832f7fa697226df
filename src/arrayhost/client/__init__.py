"""The side that uses arrays: sessions with hosts, proxies of arrays and objects."""
