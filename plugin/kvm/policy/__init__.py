"""What KVM decides about a TD by itself, whatever the TDX module could do: constants and pure rules."""
