#include "tests/faults/faults.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <new>
#include <utility>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/posix.h"
#include "tests/support/child_process.h"

namespace kvasir::testing {

Faults::Faults(const std::string& folder) : path_(folder + "/faults") {
  const UniqueFd file(::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  EXPECT_EQ(::ftruncate(file.get(), sizeof(FaultBoard)), 0) << path_;
  absl::StatusOr<MappedRegion> map =
      MappedRegion::Map(file, sizeof(FaultBoard), Access::kReadWrite);
  EXPECT_TRUE(map.ok()) << MessageOf(map.status());
  if (!map.ok()) std::abort();
  map_ = *std::move(map);
  new (map_.data()) FaultBoard;
}

std::vector<std::string> Faults::Environment() const {
  std::vector<std::string> environment = {
      "LD_PRELOAD=" + SiblingProgram("kvasir_fault_layer.so"),
      std::string(kFaultBoardVariable) + "=" + path_,
  };
  // AddressSanitizer wants to be the first library; the layer hands everything on to it.
  const char* const options = std::getenv("ASAN_OPTIONS");
  environment.push_back(std::string("ASAN_OPTIONS=") + (options == nullptr ? "" : options) +
                        ":verify_asan_link_order=0");
  return environment;
}

void Faults::Set(FaultPlace place, int error, int64_t spared) {
  board().at(place).spared = spared;
  board().at(place).error = error;
}

void Faults::Clear() {
  for (FaultBoard::Place& place : board().places) place.error = 0;
}

}  // namespace kvasir::testing
