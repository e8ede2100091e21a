// Runs a TorchScript module on one case:
//
//     libtorch <module> <outputs> <input>...
//
// Inputs are files of torch.save; the outputs become one file, which torch.load reads.

#include <torch/script.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

static std::vector<char> bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int main(int count, char** arguments) {
  c10::InferenceMode guard;
  auto module = torch::jit::load(arguments[1]);
  module.eval();
  std::vector<torch::jit::IValue> inputs;
  for (int i = 3; i < count; ++i) {
    inputs.push_back(torch::jit::pickle_load(bytes_of(arguments[i])).toTensor());
  }
  const auto outputs = module.forward(inputs);
  const auto pickled = torch::jit::pickle_save(outputs);
  std::ofstream(arguments[2], std::ios::binary).write(pickled.data(), pickled.size());
}
