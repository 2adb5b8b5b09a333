"""Key pairs, XIDs derived from keys, signatures and their verification."""
