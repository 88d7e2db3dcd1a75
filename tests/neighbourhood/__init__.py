"""One project attacks the server, while another one only wants its alerts: `test_neighbour.py`."""
