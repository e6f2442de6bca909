"""What a module update does to VMMs and guests: every bit whose class differs between two versions."""
