"""The obvious implementations beside pkt's fast ones: tests compare their numbers, the bench their cost."""
