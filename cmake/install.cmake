# cmake --install: bin/troupe with the libraries of the wheels that it needs beside it in lib/, found through $ORIGIN, so
# that it runs without Python and without .deps. ZeroMQ, PCRE2 and utf8proc stay the system's packages.
set_target_properties(troupe PROPERTIES INSTALL_RPATH "$ORIGIN/../lib")
install(TARGETS troupe RUNTIME DESTINATION bin)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/configs ${CMAKE_SOURCE_DIR}/examples DESTINATION share/troupe)

# libtorch_cpu.so carries run paths into the wheels' folders (../../nvidia/...), and $ORIGIN, which is lib/ here.
set(installed_libraries
  ${TORCH_HOME}/lib/libtorch_cpu.so ${TORCH_HOME}/lib/libc10.so ${TORCH_HOME}/lib/libgomp.so.1)
foreach(library libcudart.so.13 libcupti.so.13)
  file(GLOB found ${TROUPE_SITE_PACKAGES}/nvidia/*/lib/${library})
  if(NOT found)
    message(FATAL_ERROR "${library} is not beside LibTorch in ${TROUPE_SITE_PACKAGES}: run scripts/setup first")
  endif()
  list(APPEND installed_libraries ${found})
endforeach()
install(FILES ${installed_libraries} DESTINATION lib
        PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
