// PacedReader: the bytes of a long message for the decoder, which lets others go first now and
// then.
#ifndef KVASIR_DAEMON_CONTROL_PACED_READER_H_
#define KVASIR_DAEMON_CONTROL_PACED_READER_H_

#include <algorithm>
#include <thread>

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/proto_buffer_reader.h>

namespace kvasir {

// Not thread-safe. Otherwise grpc::ProtoBufferReader, for grpc::GenericDeserialize().
class PacedReader final : public grpc::ProtoBufferReader {
 public:
  // Decoding so much takes some 10 us.
  static constexpr int kPieceBytes = 8 << 10;

  explicit PacedReader(grpc::ByteBuffer* bytes) : grpc::ProtoBufferReader(bytes) {}

  bool Next(const void** data, int* size) override {
    if (given_ >= kPieceBytes) {
      given_ = 0;
      std::this_thread::yield();
    }
    if (!grpc::ProtoBufferReader::Next(data, size)) return false;
    held_back_ = std::max(*size - kPieceBytes, 0);
    *size -= held_back_;
    given_ += *size;
    grpc::ProtoBufferReader::BackUp(held_back_);
    return true;
  }
  void BackUp(int count) override { grpc::ProtoBufferReader::BackUp(count + held_back_); }

 private:
  int given_ = 0;      // since others had their turn
  int held_back_ = 0;  // of the piece that gRPC has given
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_PACED_READER_H_
