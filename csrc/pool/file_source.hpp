#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fastdino {

// Pictures that are whole files, or parts of larger ones: fastdino.data.sources.FileTable, whose arrays it
// reads in place.
struct FileTable {
  std::string root;          // put before every name, with a slash, unless empty
  const char* names;         // all file names, one after another
  const std::int64_t* ends;  // where each of them ends
  const std::int32_t* file;  // which file holds each picture; null if picture i is file i, whole
  const std::int64_t* offset;
  const std::int64_t* size;
};

// False, with the system's words in `reason`, if the picture cannot be read whole.
bool read_from_file(const FileTable& table, std::uint64_t index, std::vector<std::uint8_t>& bytes,
                    std::string& reason);

}  // namespace fastdino
