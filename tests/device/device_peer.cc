// The other process of the conformance suite: device_peer KIND import|export|words BYTES.
// Descriptor 3 is a socket to the test. Says "ready" when its part is done and then sleeps: the
// test kills it.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/unix_socket.h"
#include "tests/device/devices_under_test.h"

namespace kvasir::device::testing {
namespace {

constexpr int kSocket = 3;

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  KVASIR_CHECK(value.ok(), "{}", value.status().ToString());
  return *std::move(value);
}

void OkOrDie(const absl::Status& status) { KVASIR_CHECK(status.ok(), "{}", status.ToString()); }

UniqueFd ReceiveFd(const UniqueFd& socket) {
  KVASIR_CHECK(OrDie(WaitReadable(socket.get(), 60'000)), "no message");
  std::byte message[8];
  ReceivedMessage received = OrDie(ReceiveMessage(socket, message));
  KVASIR_CHECK(received.fds.size() == 1, "fds={}", received.fds.size());
  return std::move(received.fds[0]);
}

// Expects the pattern of seed 1, leaves that of seed 2.
void Import(Device& device, const UniqueFd& socket, uint64_t bytes) {
  const auto extent = OrDie(device.ImportExtent(ReceiveFd(socket), bytes, Access::kReadWrite));
  const SharedPages pages(device, bytes);
  const auto stream = OrDie(device.MakeStream(StreamPriority::kNormal));
  const CopyPiece out{pages.data(), extent->address(), bytes};
  OkOrDie(stream->Copy({&out, 1}));
  OkOrDie(stream->Synchronize());
  KVASIR_CHECK(HasPattern(pages.data(), bytes, 1), "the extent has other bytes");
  FillPattern(pages.data(), bytes, 2);
  const CopyPiece in{extent->address(), pages.data(), bytes};
  OkOrDie(stream->Copy({&in, 1}));
  OkOrDie(stream->Synchronize());
  std::puts("ready");
  std::fflush(stdout);
  ::pause();
}

// Makes an extent with the pattern of seed 3 and hands it over.
void Export(Device& device, const UniqueFd& socket, uint64_t bytes) {
  const auto extent = OrDie(device.CreateExtent(bytes, 1));
  const SharedPages pages(device, bytes);
  FillPattern(pages.data(), bytes, 3);
  const auto stream = OrDie(device.MakeStream(StreamPriority::kNormal));
  const CopyPiece in{extent->address(), pages.data(), bytes};
  OkOrDie(stream->Copy({&in, 1}));
  OkOrDie(stream->Synchronize());
  const UniqueFd fd = OrDie(extent->ExportFd());
  const std::byte message[8] = {};
  OkOrDie(SendMessage(socket, message, {{fd.get()}}));
  std::puts("ready");
  std::fflush(stdout);
  ::pause();
}

// Answers 100 rounds of word 0 in word 1, by its stream alone.
void Words(Device& device, const UniqueFd& socket, uint64_t bytes) {
  const SharedPages pages(device, ReceiveFd(socket), bytes);
  const auto stream = OrDie(device.MakeStream(StreamPriority::kLowest));
  for (uint64_t round = 1; round <= 100; ++round) {
    OkOrDie(stream->WaitWord(pages.word(0), round));
    OkOrDie(stream->WriteWord(pages.word(1), round));
  }
  std::puts("ready");
  std::fflush(stdout);
  OkOrDie(stream->Synchronize());
  ::pause();
}

int Main(int argc, char** argv) {
  KVASIR_CHECK(argc == 4, "argc={}", argc);
  const std::string mode = argv[2];
  const uint64_t bytes = std::strtoull(argv[3], nullptr, 10);
  const UniqueFd socket(kSocket);
  const auto device = OrDie(OpenForTest(argv[1]));
  if (mode == "import") Import(*device, socket, bytes);
  if (mode == "export") Export(*device, socket, bytes);
  if (mode == "words") Words(*device, socket, bytes);
  return 2;
}

}  // namespace
}  // namespace kvasir::device::testing

int main(int argc, char** argv) { return kvasir::device::testing::Main(argc, argv); }
