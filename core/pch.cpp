// Compiles the precompiled header once; the other tensor targets reuse it.
