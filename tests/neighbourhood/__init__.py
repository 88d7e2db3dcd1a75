"""One project attacks the server, while another one needs its alerts: `test_neighbour.py`."""
