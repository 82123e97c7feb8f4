"""What the gates catch: planted faults, stocks of judged cubes, the page that says so."""
